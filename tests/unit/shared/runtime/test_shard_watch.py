"""A process is ready when it can use every shard in effect or soon; workers follow the shards."""

from dataclasses import dataclass, field

import pytest

from shared.bus.core import BusUnavailableError, NotAllowedError
from shared.bus.topology import streams
from shared.log.envelope import Stored
from shared.log.shards import SOON_SECONDS, Epoch
from shared.runtime.shard_watch import ShardWatch
from tests.fakes.memory_bus import MemoryBus, MemoryStream
from tests.support.world import NOW, Clock, memory_bus

FIRST = Epoch(0, ("0",))
SOON = Epoch(NOW + SOON_SECONDS - 1, ("0", "1"))
LATER = Epoch(NOW + SOON_SECONDS + 1, ("0", "1"))


@dataclass
class World:
    """A bus with shard 0, a watch, and the shards that it brought workers to."""

    clock: Clock = field(default_factory=Clock)
    brought: list[tuple[str, ...]] = field(default_factory=list)
    fails: Exception | None = None

    def __post_init__(self) -> None:
        self.bus: MemoryBus = memory_bus(self.clock)
        self.watch = ShardWatch(self.bus, (FIRST,), self.clock, self.reconcile)

    async def reconcile(self, shards: tuple[str, ...]) -> None:
        if self.fails is not None:
            raise self.fails
        self.brought.append(shards)

    def provision(self, *shards: str) -> None:
        for spec in streams(shards):
            self.bus.streams.setdefault(spec.name, MemoryStream(spec.subjects))


@pytest.fixture
def world() -> World:
    return World()


async def test_nothing_is_ready_before_the_first_look(world: World) -> None:
    assert world.watch.problems() == ["shards of the log: not checked yet"]
    await world.watch.look()

    assert world.watch.problems() == []
    assert world.brought == [("0",)]


@pytest.mark.parametrize("epoch", [SOON, Epoch(NOW, ("1",)), Epoch(NOW - 99, ("0",), {"vip": "1"})])
async def test_a_missing_shard_of_an_epoch_in_effect_or_soon_is_named(
    world: World, epoch: Epoch
) -> None:
    await world.watch.set_epochs((FIRST, epoch))

    (problem,) = world.watch.problems()
    assert problem == "the stream of shard 1 is missing: run `scepstream provision streams`"
    assert world.brought[-1] == ("0",)


async def test_workers_come_as_soon_as_the_shard_is_there(world: World) -> None:
    await world.watch.set_epochs((FIRST, SOON))
    world.provision("1")
    await world.watch.look()

    assert world.watch.problems() == []
    assert world.brought[-1] == ("0", "1")


async def test_an_epoch_far_ahead_keeps_nobody_from_work(world: World) -> None:
    await world.watch.set_epochs((FIRST, LATER))
    assert world.watch.problems() == []
    assert world.brought[-1] == ("0",)

    world.clock.seconds += 2
    (problem,) = world.watch.problems()
    assert "shard 1" in problem
    world.provision("1")
    await world.watch.look()
    assert world.brought[-1] == ("0", "1")


async def test_a_right_that_is_missing_is_told_from_a_stream(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.provision("1")
    read = world.bus.get_last

    async def get_last(stream: str, subject: str) -> Stored | None:
        if stream == "ENROLL_1":
            raise NotAllowedError(subject)
        return await read(stream, subject)

    monkeypatch.setattr(world.bus, "get_last", get_last)
    await world.watch.set_epochs((FIRST, SOON))

    (problem,) = world.watch.problems()
    assert problem.startswith("permission for shard 1 is missing")
    assert "scepstream provision server --shard 1" in problem


async def test_what_was_worked_on_goes_on_while_its_stream_does_not_answer(world: World) -> None:
    await world.watch.look()
    del world.bus.streams["ENROLL_0"]
    await world.watch.look()

    assert world.watch.problems() != []
    assert world.brought[-1] == ("0",)


async def test_a_bus_that_is_away_changes_nothing_of_what_is_known(world: World) -> None:
    await world.watch.set_epochs((FIRST, SOON))
    before = world.watch.problems()
    world.bus.connected = False
    await world.watch.look()

    assert world.watch.problems() == before
    assert world.brought[-1] == ("0",)


async def test_workers_that_cannot_be_started_are_a_problem_until_they_can(world: World) -> None:
    world.fails = ValueError("secret")
    await world.watch.look()
    assert world.watch.problems() == ["workers of a shard cannot be started: ValueError"]

    world.fails = None
    await world.watch.look()
    assert world.watch.problems() == []


async def test_a_file_without_an_epoch_in_effect_is_named(world: World) -> None:
    await world.watch.set_epochs((SOON,))

    assert world.watch.problems() == ["log.epochs: no epoch is in effect"]


async def test_before_the_time_is_measured_the_machines_clock_counts() -> None:
    def clock() -> float:
        raise BusUnavailableError("not measured")

    watch = ShardWatch(memory_bus(), (FIRST,), clock)
    await watch.look()

    assert watch.problems() == []
