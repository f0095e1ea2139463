"""How far the services are behind: what the record says waits, and what it does not have yet."""

import asyncio
import math
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine

from services.audit.record import lag as backlog
from services.audit.record.lag import Backlog, waiting
from services.audit.record.write import store
from shared.bus.core import BusUnavailableError
from shared.log.envelope import Message, Stored
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.observe.metrics import OLDEST_WAITING
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import NANOSECONDS, NOW, Clock, memory_bus, until
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    event,
    issued,
    requested,
    stored,
)

DAY = 86400.0


def gauge(metric: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"scepstream_{metric}", labels)


def of(number: int, stage: Stage, kind: str, sequence: int, **changes: Any) -> Stored:
    return stored(sequence, enrollment(number).subject(stage), event(kind, **changes))


def at(seconds: float) -> int:
    return int((NOW + seconds) * NANOSECONDS)


# Sequence and time go together: message n was stored n seconds after NOW.
STORY = [
    requested(1, 1),
    approved(2, 1),
    issued(3, 1, "ab"),
    requested(4, 2),
    requested(5, 3),
    of(3, Stage.HOLD, "EnrollmentHeld", 6),
    requested(7, 4),
    of(4, Stage.HOLD, "EnrollmentHeld", 8),
    of(4, Stage.DECISION, "HoldDecided", 9),
    requested(10, 5),
    approved(11, 5),
    requested(12, 6),
    of(6, Stage.VERDICT, "EnrollmentRejected", 13),
]


def test_what_has_ended_or_is_held_waits_for_no_service(engine: Engine) -> None:
    store(engine, STREAM, STORY)
    with engine.connect() as connection:
        found = waiting(connection, 0)

    assert found == {Role.VALIDATOR: (2, at(4)), Role.ISSUER: (1, at(11))}


def test_what_was_asked_before_does_not_count(engine: Engine) -> None:
    store(engine, STREAM, STORY)
    with engine.connect() as connection:
        found = waiting(connection, at(7))

    assert found == {Role.VALIDATOR: (1, at(9)), Role.ISSUER: (1, at(11))}


def test_what_was_held_for_long_counts_from_the_decision_on(engine: Engine) -> None:
    """Asked on a Friday, approved on a Monday."""
    store(engine, STREAM, STORY)
    with engine.connect() as connection:
        found = waiting(connection, at(8))

    assert found[Role.VALIDATOR] == (1, at(9))


def test_nothing_waits_in_an_empty_record(engine: Engine) -> None:
    with engine.connect() as connection:
        assert waiting(connection, 0) == {Role.VALIDATOR: (0, None), Role.ISSUER: (0, None)}


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


async def fill(bus: MemoryBus, number: int) -> None:
    """So many messages in the log."""
    for message in (requested(i + 1, i) for i in range(number)):
        await bus.append(message.subject, event_of(message))


def event_of(message: Stored) -> Any:
    return Message(message.payload, dict(message.headers))


async def test_a_look_measures_the_lag_and_what_waits(bus: MemoryBus, engine: Engine) -> None:
    clock = Clock()
    await fill(bus, 20)
    store(engine, STREAM, STORY)
    clock.seconds = NOW + 100
    await Backlog(bus, engine, [STREAM, "OPS"], clock).look()

    assert gauge("bus_lag", stream=STREAM, consumer="audit") == 7
    assert gauge("bus_lag", stream="OPS", consumer="audit") == 0
    assert gauge("waiting_enrollments", role="validator") == 2
    assert gauge("oldest_waiting_seconds", role="validator") == pytest.approx(96)
    assert gauge("oldest_waiting_seconds", role="issuer") == pytest.approx(89)

    clock.seconds = NOW + DAY + 100
    await Backlog(bus, engine, [STREAM], clock).look()
    assert gauge("waiting_enrollments", role="validator") == 0
    assert gauge("oldest_waiting_seconds", role="validator") == 0


async def test_what_is_not_known_is_no_number(
    bus: MemoryBus, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_KEEPS_UP", 6)
    await fill(bus, len(STORY) + 7)
    store(engine, STREAM, STORY)
    await Backlog(bus, engine, [STREAM], Clock(NOW + 100)).look()
    behind = gauge("waiting_enrollments", role="issuer")
    monkeypatch.setattr(backlog, "_KEEPS_UP", 7)
    await Backlog(bus, engine, [STREAM], Clock(NOW + 100)).look()

    assert gauge("bus_lag", stream=STREAM, consumer="audit") == 7
    assert behind is not None
    assert math.isnan(behind)
    assert gauge("waiting_enrollments", role="issuer") == 1


async def test_a_log_that_is_away_makes_the_gauges_unknown_and_ends_nothing(
    bus: MemoryBus, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise BusUnavailableError("away")

    monkeypatch.setattr(bus, "get_last", away)
    found = Backlog(bus, engine, [STREAM], Clock(NOW + 100))
    OLDEST_WAITING.labels("validator").set(0)
    running = asyncio.create_task(found.run())
    await until(lambda: math.isnan(gauge("oldest_waiting_seconds", role="validator") or 0.0))

    assert not running.done()
    running.cancel()
