"""What all service processes share: clock, signals, HTTP on a given socket."""

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn
import uvloop
from starlette.types import ASGIApp

from shared.limits import BACKLOG, IDLE_SECONDS
from shared.runtime.connections import Connections
from shared.runtime.descriptors import raise_descriptor_limit
from shared.runtime.edge import Acceptor, EdgeProtocol, Overload, Shortcut

DRAIN_SECONDS: Final = 20.0
# The exit status of a service whose configuration cannot be used (sysexits.h: EX_CONFIG).
CONFIGURATION_STATUS: Final = 78
_LAST_WORDS_SECONDS: Final = 2.0
_TICK_SECONDS: Final = 1.0
# Cyclic garbage is rare here; Python's 700 would search for it several times per enrollment.
_NEW_OBJECTS: Final = 10_000


def now() -> float:
    """Return the time in Unix seconds. The only such clock; others get it as an argument."""
    return time.time()


class _Server(uvicorn.Server):
    """uvicorn with our accept loop and without its own signal handlers."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        overload: Overload | None,
        shortcut: Shortcut | None,
    ) -> None:
        super().__init__(config)
        self._shortcut = shortcut
        self._connections, self._overload = connections, overload
        self._exit_event = asyncio.Event()

    def request_exit(self) -> None:
        """End the main loop."""
        self.should_exit = True
        self._exit_event.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`, so that the process has one way to stop."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept connections."""
        loop = asyncio.get_running_loop()

        def make(link: Any) -> EdgeProtocol:
            return EdgeProtocol(link, self.config, self.server_state, {}, loop, self._shortcut)

        await self.lifespan.startup()
        self.servers: list[Any] = [
            Acceptor(sock, make, self.config.ssl, self._connections, self._overload)
            for sock in sockets or []
        ]
        self.started = True

    async def main_loop(self) -> None:
        """Enforce deadlines and refresh the Date header once a second.

        uvicorn's own loop would wake an idle process ten times a second.
        """
        while not await self.on_tick(0):
            self._connections.sweep()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exit_event.wait(), _TICK_SECONDS)


class HttpServer:
    """An ASGI application on listening sockets that the caller bound."""

    def __init__(
        self,
        app: ASGIApp,
        sockets: list[socket.socket],
        tls: ssl.SSLContext | None = None,
        connections: Connections | None = None,
        overload: Overload | None = None,
        shortcut: Shortcut | None = None,
    ) -> None:
        """Configure the server for an application and its sockets, with TLS if `tls` is given.

        Pass the same `connections` to listeners whose connections count together. `overload`
        refuses requests, on connections without TLS only. `shortcut` answers requests whose
        response is at hand.
        """
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # or anyone on this host could claim any client address
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=int(DRAIN_SECONDS),
            timeout_keep_alive=int(IDLE_SECONDS),
        )
        config.load()
        config.ssl = tls
        self._server = _Server(
            config,
            connections or Connections(time.monotonic),
            overload if tls is None else None,
            shortcut,
        )
        self._sockets = sockets
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to accept connections."""
        self._task = asyncio.create_task(self._server.serve(sockets=self._sockets))

    async def stop(self) -> None:
        """Stop accepting and finish the requests in progress."""
        self._server.request_exit()
        if self._task is not None:
            await self._task


@dataclass(frozen=True)
class Signals:
    """Events set by signals: `stop` by SIGTERM and SIGINT, `hangup` (reload) by SIGHUP."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hangup: asyncio.Event = field(default_factory=asyncio.Event)


def run(main: Callable[[Signals], Awaitable[None]]) -> None:
    """Run a service until SIGTERM or SIGINT; `main` gets the events that signals set."""
    raise_descriptor_limit()

    async def supervised() -> None:
        gc.freeze()  # objects loaded by now live as long as the process: never scan them again
        gc.set_threshold(_NEW_OBJECTS)
        signals = Signals()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals.stop.set)
        loop.add_signal_handler(signal.SIGHUP, signals.hangup.set)
        task = asyncio.ensure_future(main(signals))
        stopping = asyncio.create_task(signals.stop.wait())
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        # A service that still waits for its bus does not check `stop`: cancel it after a while.
        await asyncio.wait((task,), timeout=DRAIN_SECONDS + _LAST_WORDS_SECONDS)
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    uvloop.run(supervised())


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` in the background of a block; cancel it at the block's end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 means any free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except (OSError, OverflowError):
        sock.close()
        raise
    sock.listen(BACKLOG)
    return sock


def inherited(descriptor: int) -> socket.socket:
    """Return a listening socket that the supervisor bound and keeps open."""
    return socket.socket(fileno=descriptor)
