"""HTTPS on 127.0.0.1 in a thread of its own."""

import asyncio
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which shows a request its connection: faults cut it."""

    def connection_made(self, transport: Any) -> None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class Server:
    """Serves an application until `stop`."""

    def __init__(self, app: ASGIApp, listener: socket.socket, pem_path: Path) -> None:
        """Configure; `pem_path` holds the server's certificate and key."""
        config = uvicorn.Config(
            app, http=_Protocol, log_config=None, access_log=False, server_header=False,
            lifespan="off", ws="none", timeout_keep_alive=60,
        )  # fmt: skip
        config.load()
        config.ssl = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        config.ssl.load_cert_chain(pem_path)
        self._listener = listener
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="fake-microsoft", daemon=True)

    def start(self) -> None:
        """Start to serve. The socket listens already, so that no client is refused."""
        self._listener.listen()
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and wait for the thread."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        asyncio.run(self._server.serve([self._listener]))
