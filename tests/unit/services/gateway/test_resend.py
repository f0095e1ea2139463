"""A request that the log did not take is sent again until it stands there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from services.gateway.resend import Resender
from shared.log.envelope import Message
from shared.log.streams import enroll_stream
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import memory_bus, messages_of, until

STREAM = enroll_stream("0")
FIRST, SECOND = (f"enroll.0.demo.{name}.c.0.request" for name in ("first", "second"))
MESSAGE = Message(b"{}", {})


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


@pytest.fixture
async def resender(bus: MemoryBus) -> AsyncIterator[Resender]:
    found = Resender(bus, 0.001)
    task = asyncio.create_task(found.run())
    yield found
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def subjects(bus: MemoryBus) -> list[str]:
    return [stored.subject for stored in messages_of(bus, STREAM)]


async def test_what_was_not_taken_is_sent_until_it_is(bus: MemoryBus, resender: Resender) -> None:
    bus.connected = False
    resender.keep(FIRST, MESSAGE)
    resender.keep(SECOND, MESSAGE)
    bus.connected = True

    await until(lambda: subjects(bus))
    assert subjects(bus) == [SECOND]


async def test_what_is_kept_while_another_is_sent_is_sent_too(
    bus: MemoryBus, resender: Resender, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = bus.append

    async def slow(subject: str, message: Message, ttl: int = 0) -> int:
        found = await append(subject, message, ttl)
        if subject == FIRST:
            resender.keep(SECOND, MESSAGE)
        return found

    monkeypatch.setattr(bus, "append", slow)
    resender.keep(FIRST, MESSAGE)

    await until(lambda: len(subjects(bus)) == 2)
    assert subjects(bus) == [FIRST, SECOND]
