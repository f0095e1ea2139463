import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from sqlalchemy import Engine, select

from services.audit.proof.checkpoints import Checkpoints
from services.audit.record.agreement import ReplacedLogError
from services.audit.record.consumer import StreamRecorder
from services.audit.record.reconcile import forget, lost
from services.audit.record.write import position, store
from services.audit.store.engine import migrate, open_engine
from services.audit.store.tables import events
from shared.bus.core import BusUnavailableError
from shared.log.envelope import Message, Stored
from shared.log.roles import Role
from shared.log.streams import CERTS, OPS
from shared.log.subjects import checkpoint
from shared.runtime.process import background
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import OPERATOR, Clock, append, counted, memory_bus, settled, turn, until
from tests.unit.services.audit.stories import STREAM


@dataclass
class World:
    bus: MemoryBus
    engine: Engine
    recorder: StreamRecorder

    async def log(self, count: int) -> None:
        """So many events more."""
        first = self.bus.streams[STREAM].last
        for number in range(first, first + count):
            await append(self.bus, f"enroll.0.corp.t{number}.c.0.request", Message(b"{}", {}))

    async def recorded(self) -> None:
        """Everything is in the database and acknowledged."""
        await until(lambda: settled(self.bus, Role.AUDIT))

    def kept(self) -> list[int]:
        query = select(events.c.sequence).order_by(events.c.sequence)
        with self.engine.connect() as connection:
            return list(connection.execute(query).scalars())


@pytest.fixture
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('audit')}/audit.db")
    migrate(engine)
    return engine


@pytest.fixture
async def world(migrated: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("services.audit.record.consumer._FIRST_SECONDS", 0)
    monkeypatch.setattr("services.audit.record.consumer._STEADY_SECONDS", 0)
    monkeypatch.setattr("services.audit.record.consumer._RETRY_SECONDS", 0)
    bus = memory_bus()
    found = World(bus, migrated, StreamRecorder(bus, migrated, STREAM, batch=3))
    yield found
    await found.recorder.stop()
    migrated.dispose()


async def test_every_event_is_recorded_in_order(world: World) -> None:
    before = counted("audit_events", stream=STREAM)
    await world.recorder.start()
    await world.log(10)
    await world.recorded()

    assert world.kept() == list(range(1, 11))
    assert position(world.engine, STREAM) == 10
    assert counted("audit_events", stream=STREAM) == before + 10


async def test_a_redelivery_adds_nothing(world: World) -> None:
    await world.log(4)
    await world.recorder.start()
    await world.recorded()
    before = counted("audit_events", stream=STREAM)
    consumer = world.bus.consumers[f"{STREAM}/audit"]
    consumer.again += [1, 2, 3, 4]
    await world.log(1)
    await world.recorded()

    assert world.kept() == [1, 2, 3, 4, 5]
    assert counted("audit_events", stream=STREAM) == before + 1


async def test_what_was_acknowledged_before_this_database_was_made_is_read_by_sequence(
    world: World,
) -> None:
    """A new database, or one restored from a backup, beside an old durable."""
    await world.log(8)
    world.bus.consumers[f"{STREAM}/audit"].position = 8
    await world.recorder.start()
    await world.log(1)
    await world.recorded()

    assert world.kept() == list(range(1, 10))


async def test_what_the_stream_no_longer_has_is_passed_over(world: World) -> None:
    await world.log(5)
    del world.bus.streams[STREAM].messages[3]
    world.bus.consumers[f"{STREAM}/audit"].position = 4
    await world.recorder.start()
    await world.recorded()

    assert world.kept() == [1, 2, 4, 5]


async def test_nothing_is_acknowledged_before_it_is_stored(world: World) -> None:
    with world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO away")
    await world.recorder.start()
    await world.log(2)
    await until(lambda: len(world.bus.consumers[f"{STREAM}/audit"].out) == 2)
    assert not settled(world.bus, Role.AUDIT)

    with world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO events")
    await world.recorded()
    assert world.kept() == [1, 2]


async def test_an_outage_of_the_bus_is_waited_out(world: World) -> None:
    await world.log(3)
    world.bus.consumers[f"{STREAM}/audit"].position = 2
    world.bus.connected = False
    await world.recorder.start()
    await until(lambda: world.bus.consumers[f"{STREAM}/audit"].out)
    world.bus.connected = True
    await world.recorded()

    assert world.kept() == [1, 2, 3]


async def test_a_recorder_goes_on_where_another_stopped(world: World) -> None:
    await world.recorder.start()
    await world.log(2)
    await world.recorded()
    await world.recorder.stop()
    await world.bus.close()
    await world.log(2)
    again = StreamRecorder(world.bus, world.engine, STREAM, batch=3)
    await again.start()
    await world.recorded()
    await again.stop()

    assert world.kept() == [1, 2, 3, 4]


async def test_a_row_that_the_database_refuses_does_not_end_the_recording_in_silence(
    world: World,
) -> None:
    """Whatever it does with that row: a task that ended would record nothing ever after."""
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.sequence = 1 "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    await world.recorder.start()
    await world.log(1)
    await until(lambda: world.bus.consumers[f"{STREAM}/audit"].out)
    for _ in range(200):
        await asyncio.to_thread(position, world.engine, STREAM)
    assert world.recorder._task is not None
    assert not world.recorder._task.done()


async def test_a_recorder_that_never_started_stops(migrated: Engine) -> None:
    await StreamRecorder(memory_bus(), migrated, STREAM, 3).stop()
    assert position(migrated, STREAM) == 0
    migrated.dispose()


async def test_a_new_database_is_complete_without_another_event(world: World) -> None:
    await world.log(8)
    world.bus.consumers[f"{STREAM}/audit"].position = 8
    assert world.recorder.problem == "not started"
    await world.recorder.start()
    await until(lambda: not world.recorder.problem)

    assert world.kept() == list(range(1, 9))


async def test_a_database_that_goes_back_while_the_service_runs_is_filled_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.record.consumer._LOOK_SECONDS", 0.05)
    await world.recorder.start()
    await world.log(6)
    await world.recorded()
    await asyncio.to_thread(forget, world.engine)
    assert world.kept() == []

    await until(lambda: world.kept() == list(range(1, 7)))


@dataclass
class HandedOutAgain:
    """A delivery of what was recorded before."""

    stored: Stored
    stream: str = STREAM
    deliveries: int = 2
    acknowledged: int = 0

    async def ack(self, count: int = 1) -> None:
        self.acknowledged += count

    async def nak(self, delay: float) -> None:
        raise AssertionError(delay)

    async def in_progress(self) -> None:
        """Nobody waits."""


async def test_what_is_handed_out_again_is_acknowledged_once_the_database_has_it(
    world: World,
) -> None:
    await world.recorder.start()
    await world.log(6)
    await world.recorded()
    await asyncio.to_thread(forget, world.engine)
    messages = world.bus.streams[STREAM].messages
    again = [HandedOutAgain(messages[number]) for number in (5, 6)]

    await world.recorder._record([*again])

    assert again[-1].acknowledged == 2
    assert world.kept() == list(range(1, 7))


async def test_a_database_that_is_emptied_between_two_ranges_gets_no_hole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def stored(engine: Engine, *arguments: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            forget(engine)
        return store(engine, *arguments, **options)

    monkeypatch.setattr("services.audit.record.consumer.store", stored)
    await world.log(9)
    await world.recorder.start()
    await until(lambda: position(world.engine, STREAM) == 9)

    assert world.kept() == list(range(1, 10))


async def test_events_that_the_consumer_never_hands_out_are_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.record.consumer._LOOK_SECONDS", 0.05)
    await world.recorder.start()
    await until(lambda: not world.recorder.problem)
    world.bus.consumers[f"{STREAM}/audit"].position = 5
    await world.log(5)

    await until(lambda: world.kept() == [1, 2, 3, 4, 5])


async def test_a_replica_of_the_log_that_lags_behind_makes_no_gap(world: World) -> None:
    world.bus.lag = {STREAM: 4}
    await world.log(8)
    world.bus.consumers[f"{STREAM}/audit"].position = 7
    with structlog.testing.capture_logs() as logs:
        await world.recorder.start()
        await until(lambda: position(world.engine, STREAM) == 8)

    assert world.kept() == list(range(1, 9))
    assert "sequences_missing" not in {line["event"] for line in logs}
    assert await lost(world.bus, world.engine, STREAM) == []


async def test_a_gap_is_reported_by_its_sequences(world: World) -> None:
    await world.log(6)
    for sequence in (2, 3, 5):
        del world.bus.streams[STREAM].messages[sequence]
    with structlog.testing.capture_logs() as logs:
        await world.recorder.start()
        await until(lambda: world.kept() == [1, 4, 6])

    told = [line for line in logs if line["event"] == "sequences_missing"]
    assert [n for line in told for n in line["sequences"]] == [2, 3, 5]
    assert {line["log_level"] for line in told} == {"error"}


async def replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> StreamRecorder:
    """Ten events recorded, then a log with five others."""
    monkeypatch.setattr("services.audit.record.consumer._LOOK_SECONDS", 0.05)
    await world.recorder.start()
    await world.log(10)
    await world.recorded()
    await world.recorder.stop()
    world.bus = memory_bus()
    world.bus.clock = itertools.count(10**6).__next__
    await world.log(5)
    return StreamRecorder(world.bus, world.engine, STREAM, batch=3)


async def test_an_older_log_under_a_newer_database_is_an_error_and_nothing_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await replaced(world, monkeypatch)
    await recorder.start()
    await until(lambda: recorder.problem.startswith("the log ends at 5, the database at 10"))
    assert "audit reconcile" in recorder.problem

    await world.log(10)
    await until(lambda: "sequence 10: log has" in recorder.problem)
    assert world.kept() == list(range(1, 11))
    await recorder.stop()


async def test_no_checkpoint_is_signed_over_what_the_log_lacks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replaced(world, monkeypatch)
    checkpoints = Checkpoints(world.bus, world.engine, OPERATOR, [STREAM], lambda: 0.0)
    with pytest.raises(ReplacedLogError, match="the log ends at 5, the database at 10"):
        await checkpoints.sign(STREAM)

    assert await world.bus.get_last("OPS", ">") is None


@pytest.mark.parametrize("error", [ReplacedLogError("older"), BusUnavailableError(), ValueError()])
async def test_a_stream_that_cannot_be_signed_keeps_no_other_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    sign, failures = Checkpoints.sign, 0

    async def failing(self: Checkpoints, stream: str) -> tuple[int, str]:
        nonlocal failures
        if stream == CERTS:
            failures += 1
            raise error
        return await sign(self, stream)

    monkeypatch.setattr(Checkpoints, "sign", failing)
    monkeypatch.setattr("services.audit.proof.checkpoints._LOOK_SECONDS", 0.0)
    monkeypatch.setattr("services.audit.proof.checkpoints._FIRST_SECONDS", 0.0)
    await world.log(1)
    await world.recorder.start()
    await world.recorded()
    checkpoints = Checkpoints(world.bus, world.engine, OPERATOR, [CERTS, STREAM], Clock())
    async with background(checkpoints.run()):
        await until(lambda: world.bus.streams[OPS].last)
        before = failures
        await until(lambda: failures > before)

    assert [message.subject for message in world.bus.streams[OPS].messages.values()] == [
        checkpoint(STREAM, 1)
    ]


async def test_what_only_the_database_has_is_found_and_the_rest_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = await replaced(world, monkeypatch)
    gone = await lost(world.bus, world.engine, STREAM)
    assert [message.sequence for message in gone] == list(range(1, 11))

    await asyncio.to_thread(forget, world.engine)
    await recorder.start()
    await until(lambda: world.kept() == [1, 2, 3, 4, 5])
    assert await lost(world.bus, world.engine, STREAM) == []
    await recorder.stop()


async def test_under_load_events_wait_for_a_full_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.record.consumer._STEADY_SECONDS", 3600)
    await world.recorder.start()
    await world.log(1)  # after a quiet time: at once
    await world.recorded()
    await world.log(2)
    await turn(50)
    assert world.kept() == [1]

    await world.log(1)  # the batch of three is full
    await world.recorded()
    assert world.kept() == [1, 2, 3, 4]


async def test_under_load_large_events_do_not_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.audit.record.consumer._STEADY_SECONDS", 3600)
    monkeypatch.setattr("services.audit.record.consumer._FULL_BYTES", 1)
    await world.recorder.start()
    for number in range(1, 4):
        await world.log(1)
        await world.recorded()
        assert world.kept() == list(range(1, number + 1))
