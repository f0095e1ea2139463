"""What the benchmark of overload says of a client that comes after it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks import overload


@asynccontextmanager
async def gateway(status: Callable[[int], int]) -> AsyncIterator[tuple[str, list[int]]]:
    """A gateway whose answers are of this status, and the answers that it gave."""
    given: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        given.append(status(len(given)))
        writer.write(f"HTTP/1.1 {given[-1]} x\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/scep/demo", given


async def test_a_client_that_is_refused_for_long_comes_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overload, "PAUSE_SECONDS", 0.0)
    async with gateway(lambda before: 200 if before == 80 else 503) as (url, given):
        after = await overload.recovery(url, b"x")

    assert after is not None
    assert given == [503] * 80 + [200]


async def test_a_client_that_is_never_answered_has_no_time() -> None:
    async with gateway(lambda _: 503) as (url, given):
        assert await overload.recovery(url, b"x", 0.2) is None

    assert given
