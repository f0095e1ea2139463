"""Several audit replicas on one database share the work, and none counts what another has."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from services.audit.record.consumer import StreamRecorder
from services.audit.record.write import store
from services.audit.store.engine import _lock_number, migrate, open_engine
from shared.log.envelope import Message, Stored
from tests.support.system import wait_until
from tests.support.world import memory_bus, until
from tests.unit.services.audit.record.test_enrollments import log, rows, tables
from tests.unit.services.audit.stories import STREAM


@pytest.mark.parametrize("seed", range(3))
def test_writers_of_one_stream_at_once_double_nothing(engine: Engine, seed: int) -> None:
    """The same messages, in batches that overlap, from four sides."""
    messages = log(seed, 30)[STREAM]

    async def write(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        at = 0
        while at < len(messages):
            last = at + rng.randint(1, 9)
            await asyncio.to_thread(store, engine, STREAM, messages[:last][-20:])
            at = last

    async def all_at_once() -> None:
        await asyncio.gather(*(write(number) for number in range(4)))

    asyncio.run(all_at_once())
    counted = sum(row["count"] for row in rows(engine, "counters"))
    ended = [row for row in rows(engine, "enrollments") if row["ended_at"]]

    assert counted == len(ended)
    assert len(rows(engine, "events")) == len(messages)


async def test_two_recorders_of_one_consumer_keep_every_event_once(engine: Engine) -> None:
    bus = memory_bus()
    recorders = [StreamRecorder(bus, engine, STREAM, batch=3) for _ in range(2)]
    messages: list[Stored] = log(5)[STREAM]
    for recorder in recorders:
        await recorder.start()
    for message in messages:
        await bus.append(message.subject, Message(message.payload, dict(message.headers)))
    await until(lambda: len(rows(engine, "events")) == len(messages))
    for recorder in recorders:
        await recorder.stop()

    ended = [row for row in rows(engine, "enrollments") if row["ended_at"]]
    assert sum(row["count"] for row in rows(engine, "counters")) == len(ended)
    assert tables(engine)["devices"]


@pytest.mark.xdist_group("postgresql")
def test_nothing_is_recorded_while_a_migration_makes_the_model_anew(postgres_url: str) -> None:
    """SQLite has one writer; PostgreSQL would let rows be counted twice, or lost."""
    engine = open_engine(postgres_url)
    migrate(engine)
    waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    lock = text(f"SELECT pg_advisory_xact_lock({_lock_number('migrations')})")
    with ThreadPoolExecutor(1) as pool, engine.connect() as looking:
        with engine.begin() as migrating:
            migrating.execute(lock)
            recording = pool.submit(store, engine, STREAM, log(1)[STREAM])
            wait_until(lambda: looking.execute(waits).scalar(), 20, "a recorder that waits")
            assert rows(engine, "events") == []
        assert recording.result(20) == len(log(1)[STREAM])
    engine.dispose()
