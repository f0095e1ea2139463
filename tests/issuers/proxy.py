"""A proxy between a connector and its CA that spoils the answer to one call. HTTP/1.1, loopback."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

# What can happen to a call. `lost`: the CA acts, and its answer does not arrive. `cut`: half of it
# arrives. The others never reach the CA.
FAULTS: Final = {
    "busy": b"HTTP/1.1 429 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
    "away": b"HTTP/1.1 503 Away\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
    "redirect": b"HTTP/1.1 302 Elsewhere\r\nlocation: http://127.0.0.1:9/\r\n"
    b"content-length: 0\r\n\r\n",
    "failed": b"HTTP/1.1 500 Failed\r\ncontent-length: 5\r\n\r\noops!",
    "garbage": b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\xff{[\0",
    "endless": b"HTTP/1.1 200 OK\r\ncontent-length: 900000000\r\n\r\n" + b"x" * (6 * 1024 * 1024),
    "lost": b"",
    "cut": b"",
}
_ACTS: Final = ("lost", "cut")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


@dataclass
class Proxy:
    """Passes calls on to a port; `spoil` is what happens to the next one that `matches`.

    `matches` is a pattern for "METHOD /path". `calls` are those that were seen.
    """

    target: int
    matches: str = ".*"
    spoil: str = ""
    calls: list[str] = field(default_factory=list)
    port: int = 0
    server: asyncio.Server | None = None

    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def stop(self) -> None:
        """Refuse connections from now on, and end those there are."""
        assert self.server is not None
        self.server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self.port}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of one connection, in a task of its own."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await _head(reader):
                body = await _body(reader, head)
                line = head.split(b" HTTP/", 1)[0].decode()
                self.calls.append(line)
                fault = self._fault(line)
                answer = b"" if fault and fault not in _ACTS else await self._passed(head + body)
                if fault:
                    writer.write(answer[: len(answer) // 2] if fault == "cut" else FAULTS[fault])
                    await writer.drain()
                    break
                writer.write(answer)
                await writer.drain()

    def _fault(self, line: str) -> str:
        if not self.spoil or not re.search(self.matches, line):
            return ""
        fault, self.spoil = self.spoil, ""
        return fault

    async def _passed(self, call: bytes) -> bytes:
        """The CA's whole answer to a call; each takes a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        try:
            writer.write(call)
            await writer.drain()
            head = await _head(reader)
            return head + await _body(reader, head)
        finally:
            writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if found := _LENGTH.search(head):
        return await reader.readexactly(int(found[1]))
    if not _CHUNKED.search(head):
        return b""
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        body += await reader.readuntil(b"\r\n")
    return body


@asynccontextmanager
async def proxied(target: int, matches: str) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a port of this machine."""
    proxy = Proxy(target, matches)
    server = proxy.server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        await proxy.stop()
