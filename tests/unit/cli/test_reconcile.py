"""What `audit reconcile` does before it empties the database, and what it says."""

import json
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from cli import reconcile
from services.audit.commands.context import CommandError, OperatorContext
from services.audit.record.reconcile import forget
from services.audit.record.write import position, store
from services.audit.store.engine import migrate, open_engine
from shared.bus.core import BusUnavailableError
from shared.log.envelope import TYPE, Message
from tests.fakes.memory_bus import MemoryBus
from tests.support.operator_api import settings
from tests.support.world import append, memory_bus
from tests.unit.services.audit.stories import STREAM, requested, stored

ODD = "\x1b[31mred"


@dataclass
class World:
    """A log of one event under a database of three others, the last of an odd type."""

    bus: MemoryBus
    engine: Engine
    kept: Path

    async def reconcile(self) -> None:
        told = replace(settings(), streams=(STREAM,))
        context = OperatorContext(self.bus, told, cast("Any", None), {}, {}, "somebody")
        reconcile._report(await reconcile._lost(context, self.engine))
        await reconcile._rebuild(context, self.engine, self.kept)

    def recorded(self) -> int:
        return position(self.engine, STREAM)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    bus, engine = memory_bus(), open_engine(f"sqlite:///{tmp_path / 'audit.db'}")
    migrate(engine)
    odd = stored(3, "enroll.0.corp.odd.c.0.request", Message(b"{}", {TYPE: ODD}))
    store(engine, STREAM, [requested(1, 1), requested(2, 2), odd])
    await append(bus, "enroll.0.corp.t.c.0.request", Message(b"{}", {}))
    yield World(bus, engine, tmp_path / "lost.jsonl")
    engine.dispose()


async def test_what_is_lost_is_on_the_disk_before_the_database_is_emptied(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        done.append(f"{kind} of {len(world.kept.read_text().splitlines())} lines")
        fsync(descriptor)

    def forgotten(engine: Engine) -> None:
        done.append("forgotten")
        forget(engine)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr(reconcile, "forget", forgotten)
    await world.reconcile()

    assert done == ["file of 3 lines", "directory of 3 lines", "forgotten"]
    assert stat.S_IMODE(world.kept.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in world.kept.read_text().splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2, 3]
    assert world.recorded() == 1


async def test_a_disk_that_does_not_keep_it_leaves_the_database_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CommandError, match="No space left on device"):
        await world.reconcile()

    assert world.recorded() == 3


async def test_a_log_that_does_not_answer_leaves_the_database_as_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise BusUnavailableError

    monkeypatch.setattr(world.bus, "get_last_from_leader", away)
    with pytest.raises(BusUnavailableError):
        await world.reconcile()

    assert world.recorded() == 3


async def test_a_terminal_obeys_nothing_of_what_is_reported(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.reconcile()
    printed = capsys.readouterr().out

    assert "\x1b" not in printed
    assert "red" in printed
