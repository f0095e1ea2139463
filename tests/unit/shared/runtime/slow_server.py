"""A server process of its own for tests of connections: descriptors are a process's.

Arguments: listening descriptor, limit of descriptors, shares (connections, unfinished).
"""

import asyncio
import resource
import socket
import sys
import time
from typing import Any

import uvloop

from shared.observe.logs import configure_logging
from shared.runtime.connections import Connections, Shares
from shared.runtime.descriptors import raise_descriptor_limit
from shared.runtime.process import HttpServer


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body and tell its length; fail at /fail."""
    if scope["path"] == "/fail":
        raise RuntimeError(scope["query_string"].decode())
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        length += len(message["body"])
        more = message["more_body"]
    body = str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main() -> None:
    descriptor, limit, connections, unfinished = map(int, sys.argv[1:])
    if limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit // 2, limit))
    raise_descriptor_limit()
    configure_logging("test", "test-0")
    shares = Shares(connections, unfinished)
    registry = Connections(time.monotonic, shares)
    HttpServer(app, [socket.socket(fileno=descriptor)], None, registry).start()
    await asyncio.Event().wait()


uvloop.run(main())
