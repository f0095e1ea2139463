"""Events of which the database has only digests: their messages come from the log."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, select

from services.audit.query.messages import with_payloads
from services.audit.record.catch_up import fill
from services.audit.store.tables import events
from shared.bus.core import BusUnavailableError
from shared.log.envelope import Message
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import append, memory_bus
from tests.unit.services.audit.stories import STREAM

SUBJECTS = [f"enroll.0.corp.t.c.0.{stage}" for stage in ("request", "verdict", "outcome")]


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


async def recorded(bus: MemoryBus, engine: Engine) -> list[dict[str, Any]]:
    """The rows of three events, the last of which is kept whole."""
    for subject in SUBJECTS:
        await append(bus, subject, Message(subject.encode(), {}))
    async for _ in fill(bus, engine, STREAM, len(SUBJECTS)):
        pass
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(events)).mappings()]


def payloads(rows: list[dict[str, Any]]) -> list[bytes | None]:
    return [row["payload"] for row in rows]


async def test_what_the_database_lacks_is_read_from_the_log(bus: MemoryBus, engine: Engine) -> None:
    rows = await recorded(bus, engine)
    assert payloads(rows) == [None, None, SUBJECTS[2].encode()]

    assert payloads(await with_payloads(bus, rows)) == [each.encode() for each in SUBJECTS]
    assert payloads(rows) == [None, None, SUBJECTS[2].encode()]


async def test_of_many_that_were_planted_only_the_first_are_read(
    bus: MemoryBus, engine: Engine
) -> None:
    planted = [f"enroll.0.corp.t.c.0.planted{number}" for number in range(40)]
    for subject in planted:
        await append(bus, subject, Message(b"planted", {}))
    async for _ in fill(bus, engine, STREAM, len(planted)):
        pass
    with engine.connect() as connection:
        query = select(events).order_by(events.c.sequence)
        rows = [dict(row) for row in connection.execute(query).mappings()]

    assert payloads(await with_payloads(bus, rows)) == [b"planted"] * 32 + [None] * 8


async def test_another_event_at_that_place_is_not_shown_as_this_one(
    bus: MemoryBus, engine: Engine
) -> None:
    """As after the log was replaced by an older one."""
    rows = await recorded(bus, engine)
    other = memory_bus()
    for subject in SUBJECTS:
        await append(other, subject, Message(b"another", {}))

    assert payloads(await with_payloads(other, rows)) == payloads(rows)


@pytest.mark.parametrize("silent", [False, True], ids=["an error", "no answer"])
async def test_without_the_log_the_rest_is_there(
    bus: MemoryBus,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    silent: bool,  # noqa: FBT001
) -> None:
    rows = await recorded(bus, engine)

    async def away(*_: object) -> None:
        if silent:
            await asyncio.Event().wait()
        raise BusUnavailableError("away")

    monkeypatch.setattr(bus, "get_sequence_or_leader", away)
    monkeypatch.setattr("services.audit.query.messages._SECONDS", 0.05)

    assert payloads(await with_payloads(bus, rows)) == payloads(rows)
