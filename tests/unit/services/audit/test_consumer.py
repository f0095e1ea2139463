import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, select

from services.audit.consumer import StreamRecorder
from services.audit.database import migrate, open_engine, position
from services.audit.tables import events
from shared.bus.topology import Role
from shared.stored import Message
from tests.fakes.memory_bus import MemoryBus
from tests.unit.services.audit.stories import STREAM
from tests.unit.world import append, counted, memory_bus, settled, until


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
    monkeypatch.setattr("services.audit.consumer._GATHER_SECONDS", 0)
    monkeypatch.setattr("services.audit.consumer._RETRY_SECONDS", 0)
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
