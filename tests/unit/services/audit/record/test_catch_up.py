from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select

from services.audit.record.catch_up import fill
from services.audit.record.reconcile import forget
from services.audit.record.write import position, store
from services.audit.store.tables import events
from shared.log.envelope import Message
from tests.support.world import append, memory_bus
from tests.unit.services.audit.stories import STREAM


async def filled(engine: Engine, count: int) -> list[int]:
    bus = memory_bus()
    for number in range(count):
        await append(bus, f"enroll.0.corp.t{number}.c.0.request", Message(b"{}", {}))
    async for _ in fill(bus, engine, STREAM, count):
        pass
    with engine.connect() as connection:
        return list(
            connection.execute(select(events.c.sequence).order_by(events.c.sequence)).scalars()
        )


def interrupted(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something between the first range and the second."""
    calls = 0

    def stored(engine: Engine, *arguments: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            work()
        return store(engine, *arguments, **options)

    monkeypatch.setattr("services.audit.record.catch_up.store", stored)


async def test_a_database_that_is_emptied_while_it_is_filled_is_filled_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, lambda: forget(engine))

    assert await filled(engine, 600) == list(range(1, 601))
    assert position(engine, STREAM) == 600


async def test_a_database_that_is_full_already_is_left_alone(engine: Engine) -> None:
    assert await filled(engine, 3) == [1, 2, 3]
    assert await filled(engine, 3) == [1, 2, 3]
