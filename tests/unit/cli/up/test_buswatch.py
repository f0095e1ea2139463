"""When `up` restarts nats-server, when it makes consumers again, and when it leaves both alone."""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.up.buswatch import BusWatch

FULL = "ENROLL_0 rejects appends"


@dataclass
class World:
    """What the services say, and what was done about it."""

    reports: list[str] = field(default_factory=list)
    seconds: float = 1000.0
    done: "Counter[str]" = field(default_factory=Counter)
    notices: list[str] = field(default_factory=list)

    def watch(self) -> BusWatch:
        async def reports() -> list[str]:
            return self.reports

        async def restart() -> None:
            self.done["restart"] += 1

        async def provision() -> None:
            self.done["provision"] += 1

        here = Path(__file__).parent
        return BusWatch(
            here, reports, restart, provision, self.notices.append, lambda: self.seconds
        )

    async def look(self, watch: BusWatch, seconds: int) -> None:
        """Look every three seconds for so long."""
        for _ in range(0, seconds, 3):
            self.seconds += 3
            await watch.look()


@pytest.fixture
def world() -> World:
    return World()


async def test_nothing_is_done_where_nothing_is_reported(world: World) -> None:
    world.reports = ["CA chain of local", ""]
    await world.look(world.watch(), 60)

    assert world.done == {}
    assert world.notices == []


async def test_a_standstill_that_lasts_restarts_the_server_with_growing_gaps(world: World) -> None:
    watch = world.watch()
    world.reports = [FULL]
    await world.look(watch, 9)
    assert world.done["restart"] == 0
    await world.look(watch, 9)
    assert world.done["restart"] == 1
    await world.look(watch, 24)
    assert world.done["restart"] == 1
    await world.look(watch, 300)
    assert 3 <= world.done["restart"] <= 4
    assert len(world.notices) == 1


async def test_a_short_standstill_restarts_nothing(world: World) -> None:
    watch = world.watch()
    for _ in range(10):
        world.reports = [FULL]
        await world.look(watch, 9)
        world.reports = []
        await world.look(watch, 3)

    assert world.done == {}


async def test_while_the_disk_is_full_it_says_so_once_and_restarts_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = world.watch()
    world.reports = [FULL]
    free = SimpleNamespace(free=5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    await world.look(watch, 60)
    assert world.done == {}
    assert len(world.notices) == 1
    assert "5 MiB are free" in world.notices[0]

    free.free = 1 << 40
    await world.look(watch, 3)
    assert world.done["restart"] == 1


async def test_a_missing_consumer_is_made_again(world: World) -> None:
    world.reports = ["consumer validator of ENROLL_0 is missing"]
    await world.look(world.watch(), 3)

    assert world.done == {"provision": 1}
