"""What is left of a connection once it is closed: nothing."""

import asyncio
import gc
import socket
import struct

import pytest

from shared.runtime.edge import EdgeProtocol
from shared.runtime.process import HttpServer
from tests.support.world import until

pytestmark = pytest.mark.slow

ASKED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CONNECTIONS = 20


async def answer(_: object, __: object, send: object) -> None:
    """As short as an application can be."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    for message in (start, {"type": "http.response.body"}):
        await send(message)  # type: ignore[operator]


async def ask(address: tuple[str, int], times: int, *, reset: bool) -> None:
    """Some requests on one connection, which ends as it should, or is broken off."""
    reader, writer = await asyncio.open_connection(*address)
    for _ in range(times):
        writer.write(ASKED)
        await reader.readuntil(b"\r\n\r\n")
    if reset:
        end = writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    await writer.wait_closed()


def held() -> int:
    """How many connections are in memory, open or not."""
    gc.collect()
    return sum(isinstance(each, EdgeProtocol) for each in gc.get_objects())


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_has_ended_leaves_memory(times: int, *, reset: bool) -> None:
    """Else a flood of short connections is kept as long as an idle one may last."""
    before = held()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HttpServer(answer, [listener])  # type: ignore[arg-type]
        server.start()
        for _ in range(CONNECTIONS):
            await ask(listener.getsockname(), times, reset=reset)

        await until(lambda: held() - before <= 1)
        await server.stop()
