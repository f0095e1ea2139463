"""A keep-alive HTTP/1.1 connection that posts prepared bytes at little cost."""

import asyncio
import socket
from dataclasses import dataclass
from typing import cast
from urllib.parse import SplitResult, urlsplit

import httptools


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a SCEP server, and the head of every POST to it."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> "Endpoint":
        parts: SplitResult = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"not a plain HTTP URL: {url}")
        return cls(parts.hostname, parts.port or 80, parts.path or "/")

    def post(self, body: bytes) -> bytes:
        """Return a complete PKIOperation request (RFC 8894 s4.3)."""
        head = (
            f"POST {self.path}?operation=PKIOperation HTTP/1.1\r\n"
            f"Host: {self.host}:{self.port}\r\n"
            "Content-Type: application/x-pki-message\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection, one request at a time; `ConnectionError` if it breaks."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self.usable = True

    @classmethod
    async def open(cls, endpoint: Endpoint) -> "Connection":
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(cls, endpoint.host, endpoint.port)
        return protocol

    async def exchange(self, request: bytes) -> Response:
        """Send a request and return its response."""
        if self._transport is None or not self.usable:
            raise ConnectionError("closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self._fail("not HTTP")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.usable = False
        self._fail("closed")

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.usable = self._parser.should_keep_alive()
        response = Response(self._parser.get_status_code(), b"".join(self._body))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(response)

    def _fail(self, reason: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError(reason))
