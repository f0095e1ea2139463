import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from shared.bus.core import AppendConflictError, BusRefusedError, BusUnavailableError
from shared.log.envelope import Message, Stored, decode
from shared.log.events.state import DeadLetter
from shared.log.roles import Role
from shared.runtime.worker import MAX_DELIVERIES, Job, NotServedError, Worker, Workers, working
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import append, counted, memory_bus, messages_of, settled, turn, until

SUBJECT = "enroll.0.demo.t.c.0.request"
EMPTY = Message(b"{}", {})


@dataclass
class Handlers:
    """A handler and its last resort, which do as a test tells them and write down their calls."""

    fail: list[Exception] = field(default_factory=list)
    fail_always: bool = False
    cannot_give_up: bool = False
    block: asyncio.Event | None = None
    handled: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)

    async def handle(self, stored: Stored) -> None:
        self.handled.append(stored.subject)
        if self.block is not None:
            await self.block.wait()
        if self.fail_always:
            raise ValueError("a bug")
        if self.fail:
            raise self.fail.pop(0)
        self.finished.append(stored.subject)

    async def give_up(self, stored: Stored) -> None:
        if self.cannot_give_up:
            raise BusRefusedError("too large")
        self.given_up.append(stored.subject)


@dataclass
class World:
    bus: MemoryBus
    handlers: Handlers
    worker: Worker

    def settled(self) -> bool:
        return settled(self.bus, Role.VALIDATOR)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("shared.runtime.worker._RETRY_SECONDS", 0)
    bus, handlers = memory_bus(), Handlers()
    worker = Worker(bus, Role.VALIDATOR, "ENROLL_0", handlers.handle, handlers.give_up, 2)
    found = World(bus, handlers, worker)
    yield found
    await worker.stop()


async def test_a_message_is_acknowledged_after_it_was_handled(world: World) -> None:
    world.handlers.block = asyncio.Event()
    await world.worker.start()
    await append(world.bus, SUBJECT, EMPTY)
    await until(lambda: world.handlers.handled)
    await turn()
    assert not world.settled()

    world.handlers.block.set()
    await until(world.settled)
    assert world.handlers.finished == [SUBJECT]


async def test_a_message_that_fails_is_given_back_and_comes_again(world: World) -> None:
    world.handlers.fail = [ValueError("once"), KeyError("twice")]
    failures, again = (
        counted("failures", role="validator"),
        counted("redeliveries", role="validator"),
    )
    await append(world.bus, SUBJECT, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert world.handlers.handled == [SUBJECT] * 3
    assert world.handlers.finished == [SUBJECT]
    assert counted("failures", role="validator") == failures + 2
    assert counted("redeliveries", role="validator") == again + 2


async def test_a_message_that_always_fails_is_buried_with_a_letter(world: World) -> None:
    world.handlers.fail_always = True
    letters = counted("dead_letters", role="validator")
    stored = await append(world.bus, SUBJECT, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert world.handlers.handled == [SUBJECT] * MAX_DELIVERIES
    assert world.handlers.given_up == [SUBJECT]
    (letter,) = messages_of(world.bus, "DEAD_LETTERS")
    assert letter.subject == f"dead.validator.ENROLL_0.{stored.sequence}"
    assert decode(letter.payload, letter.headers) == DeadLetter(
        subject=SUBJECT,
        stream="ENROLL_0",
        sequence=stored.sequence,
        deliveries=MAX_DELIVERIES + 1,
        role="validator",
    )
    assert counted("dead_letters", role="validator") == letters + 1


async def test_a_letter_that_is_there_already_is_as_good(world: World) -> None:
    """The worker was killed between the letter and its acknowledgement."""
    world.handlers.fail_always = True
    letters = counted("dead_letters", role="validator")
    stored = await append(world.bus, SUBJECT, EMPTY)
    await world.bus.append(f"dead.validator.ENROLL_0.{stored.sequence}", EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert len(messages_of(world.bus, "DEAD_LETTERS")) == 1
    assert counted("dead_letters", role="validator") == letters


async def test_a_message_behind_a_failing_one_is_handled(world: World) -> None:
    world.handlers.fail = [ValueError("a bug")]
    other = "enroll.0.demo.t.other.0.request"
    await append(world.bus, SUBJECT, EMPTY)
    await append(world.bus, other, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert sorted(world.handlers.finished) == sorted([SUBJECT, other])


async def test_an_outage_of_the_bus_is_waited_out_and_counts_for_nothing(world: World) -> None:
    outages = MAX_DELIVERIES + 5
    world.handlers.fail = [BusUnavailableError("away") for _ in range(outages)]
    failures = counted("failures", role="validator")
    await append(world.bus, SUBJECT, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert world.handlers.handled == [SUBJECT] * (outages + 1)
    assert world.handlers.given_up == []
    assert world.bus.consumers["ENROLL_0/validator"].deliveries == {1: 1}
    assert counted("failures", role="validator") == failures


async def test_what_the_bus_will_never_take_ends_as_poison_and_holds_no_place(
    world: World,
) -> None:
    """An event that grew too large for the bus stays so, however long one waits."""
    world.handlers.fail = [BusRefusedError("too large") for _ in range(MAX_DELIVERIES)]
    await append(world.bus, SUBJECT, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert world.handlers.given_up == [SUBJECT]
    assert len(messages_of(world.bus, "DEAD_LETTERS")) == 1


async def test_a_message_that_cannot_even_be_given_up_is_handed_out_no_more(
    world: World,
) -> None:
    world.handlers.fail_always = True
    world.handlers.cannot_give_up = True
    await append(world.bus, SUBJECT, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert len(messages_of(world.bus, "DEAD_LETTERS")) == 1


async def test_a_profile_not_served_here_goes_to_others_first_and_never_ends_as_poison(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.runtime.worker._NOT_SERVED_RETRY_SECONDS", 0)
    world.handlers.fail = [NotServedError("demo") for _ in range(10 * MAX_DELIVERIES)]
    failures = counted("failures", role="validator")
    await append(world.bus, SUBJECT, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert world.handlers.finished == [SUBJECT]
    assert world.handlers.given_up == []
    assert 1 < world.bus.consumers["ENROLL_0/validator"].deliveries[1] < MAX_DELIVERIES
    assert counted("failures", role="validator") == failures


async def test_a_conflict_that_a_handler_lets_through_is_a_failure_like_any(world: World) -> None:
    world.handlers.fail = [AppendConflictError(SUBJECT)]
    await append(world.bus, SUBJECT, EMPTY)
    await world.worker.start()
    await until(world.settled)

    assert world.handlers.finished == [SUBJECT]


async def test_no_more_than_its_concurrency_is_in_work(world: World) -> None:
    world.handlers.block = asyncio.Event()
    for number in range(5):
        await append(world.bus, f"enroll.0.demo.t.c{number}.0.request", EMPTY)
    await world.worker.start()
    await until(lambda: len(world.handlers.handled) == 2)
    await turn()
    assert len(world.handlers.handled) == 2

    world.handlers.block.set()
    await until(world.settled)
    assert len(world.handlers.finished) == 5


async def test_stopping_finishes_what_is_in_hand_and_takes_nothing_new(world: World) -> None:
    world.handlers.block = asyncio.Event()
    await world.worker.start()
    await append(world.bus, SUBJECT, EMPTY)
    await until(lambda: world.handlers.handled)
    stopping = asyncio.create_task(world.worker.stop())
    await turn()
    await append(world.bus, "enroll.0.demo.t.late.0.request", EMPTY)
    await turn()
    assert not stopping.done()

    world.handlers.block.set()
    await stopping
    assert world.handlers.finished == world.handlers.handled == [SUBJECT]
    assert world.bus.consumers["ENROLL_0/validator"].out == set()


async def test_what_was_out_when_a_worker_died_is_handled_by_the_next(world: World) -> None:
    world.handlers.block = asyncio.Event()
    await world.worker.start()
    await append(world.bus, SUBJECT, EMPTY)
    await until(lambda: world.handlers.handled)
    next_one = Handlers()
    other = Worker(world.bus, Role.VALIDATOR, "ENROLL_0", next_one.handle, next_one.give_up, 2)
    await world.bus.close()
    await other.start()
    world.bus.expire()
    await until(lambda: next_one.finished)

    assert next_one.finished == [SUBJECT]
    world.handlers.block.set()
    await other.stop()


# Several jobs


@pytest.fixture
def jobs() -> dict[str, Handlers]:
    """A handler for each of a role's streams."""
    return {"ENROLL_0": Handlers(), "ENROLL_1": Handlers()}


@asynccontextmanager
async def at_work(jobs: dict[str, Handlers]) -> AsyncIterator[MemoryBus]:
    bus = memory_bus(shards=("0", "1"))
    listed = [Job(stream, h.handle, h.give_up) for stream, h in jobs.items()]
    async with working(bus, Role.VALIDATOR, listed, 2):
        yield bus


async def test_each_stream_goes_to_its_own_handler(jobs: dict[str, Handlers]) -> None:
    other = "enroll.1.demo.t.c.0.request"
    async with at_work(jobs) as bus:
        await append(bus, SUBJECT, EMPTY)
        await append(bus, other, EMPTY)
        await until(lambda: settled(bus, Role.VALIDATOR) and settled(bus, Role.VALIDATOR, "1"))

    assert [h.finished for h in jobs.values()] == [[SUBJECT], [other]]


async def test_a_job_that_is_stuck_does_not_hold_up_another(jobs: dict[str, Handlers]) -> None:
    block = jobs["ENROLL_0"].block = asyncio.Event()
    async with at_work(jobs) as bus:
        for number in range(4):
            await append(bus, f"enroll.0.demo.t.c{number}.0.request", EMPTY)
        await append(bus, "enroll.1.demo.t.c.0.request", EMPTY)
        await until(lambda: jobs["ENROLL_1"].finished)
        assert jobs["ENROLL_0"].finished == []
        assert len(jobs["ENROLL_0"].handled) == 2
        block.set()
        await until(lambda: settled(bus, Role.VALIDATOR))


async def test_leaving_finishes_what_every_job_has_in_hand(jobs: dict[str, Handlers]) -> None:
    block = jobs["ENROLL_0"].block = asyncio.Event()
    async with at_work(jobs) as bus:
        await append(bus, SUBJECT, EMPTY)
        await until(lambda: jobs["ENROLL_0"].handled)
        asyncio.get_running_loop().call_soon(block.set)

    assert jobs["ENROLL_0"].finished == [SUBJECT]
    assert bus.consumers["ENROLL_0/validator"].out == set()


# Jobs that come and go


def jobs_of(handlers: dict[str, Handlers]) -> list[Job]:
    return [Job(stream, h.handle, h.give_up) for stream, h in handlers.items()]


async def test_a_job_that_comes_later_is_worked_on_and_the_old_one_goes_on(
    jobs: dict[str, Handlers],
) -> None:
    bus = memory_bus(shards=("0", "1"))
    workers, first = Workers(bus, Role.VALIDATOR), jobs["ENROLL_0"]
    first.block = asyncio.Event()
    await workers.reconcile(jobs_of({"ENROLL_0": first}), 1)
    await append(bus, SUBJECT, EMPTY)
    await until(lambda: first.handled)
    await workers.reconcile(jobs_of(jobs), 1)
    await append(bus, "enroll.1.demo.t.c.0.request", EMPTY)
    await until(lambda: jobs["ENROLL_1"].finished)

    assert first.handled == [SUBJECT]
    first.block.set()
    await until(lambda: first.finished == [SUBJECT])
    await workers.stop()
    assert first.handled == [SUBJECT]


async def test_a_job_that_is_wanted_no_more_ends_with_what_it_has_in_hand(
    jobs: dict[str, Handlers],
) -> None:
    bus = memory_bus(shards=("0", "1"))
    workers, second = Workers(bus, Role.VALIDATOR), jobs["ENROLL_1"]
    second.block = asyncio.Event()
    await workers.reconcile(jobs_of(jobs), 1)
    await append(bus, "enroll.1.demo.t.c.0.request", EMPTY)
    await until(lambda: second.handled)
    ending = asyncio.create_task(workers.reconcile(jobs_of({"ENROLL_0": jobs["ENROLL_0"]}), 1))
    await turn()
    assert not ending.done()
    second.block.set()
    await ending
    await append(bus, "enroll.1.demo.t.c2.0.request", EMPTY)
    await append(bus, SUBJECT, EMPTY)
    await until(lambda: jobs["ENROLL_0"].finished)

    assert second.finished == ["enroll.1.demo.t.c.0.request"]
    await workers.stop()


async def test_another_number_of_places_holds_from_then_on(jobs: dict[str, Handlers]) -> None:
    bus, first = memory_bus(), jobs["ENROLL_0"]
    workers = Workers(bus, Role.VALIDATOR)
    first.block = asyncio.Event()
    await workers.reconcile(jobs_of({"ENROLL_0": first}), 1)
    for number in range(5):
        await append(bus, f"enroll.0.demo.t.c{number}.0.request", EMPTY)
    await until(lambda: first.handled)
    await turn()
    assert len(first.handled) == 1

    await workers.reconcile(jobs_of({"ENROLL_0": first}), 3)
    await until(lambda: len(first.handled) == 3)
    await turn()
    assert len(first.handled) == 3
    first.block.set()
    await until(lambda: len(first.finished) == 5)
    await workers.stop()


async def test_workers_stop_when_their_block_fails(jobs: dict[str, Handlers]) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        async with at_work(jobs):
            raise ZeroDivisionError
    await turn(10)

    assert asyncio.all_tasks() <= before
