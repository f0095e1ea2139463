"""Events that only the database has, and how to empty the database."""

import asyncio

from sqlalchemy import Engine, delete

from services.audit.record.digest import event_digest, own_headers
from services.audit.record.event_row import RecordedEvent
from services.audit.record.log_reader import patiently, read_some
from services.audit.record.write import events_after, position
from services.audit.store.engine import lock_all
from services.audit.store.tables import metadata
from shared.bus.core import Bus
from shared.log.envelope import Stored


async def lost(bus: Bus, engine: Engine, stream: str) -> list[RecordedEvent]:
    """Return the recorded events of a stream that the log does not have at their sequence."""
    found: list[RecordedEvent] = []
    after, last = 0, await asyncio.to_thread(position, engine, stream)
    while after < last:
        rows = await asyncio.to_thread(events_after, engine, stream, after)
        if not rows:
            break
        found += await _not_there(bus, stream, rows)
        after = rows[-1].sequence
    return found


async def _not_there(bus: Bus, stream: str, rows: list[RecordedEvent]) -> list[RecordedEvent]:
    numbers = [row.sequence for row in rows]
    there = await patiently(lambda: read_some(bus, stream, numbers))
    return [row for row in rows if not _same(row, there.get(row.sequence))]


def _same(row: RecordedEvent, stored: Stored | None) -> bool:
    return stored is not None and event_digest(stored, own_headers(stored)) == row.digest


def forget(engine: Engine) -> None:
    """Empty every table that is made from the log; API tokens and sessions stay.

    A service that is recording starts over from the first event: see `write.store`.
    """
    with engine.begin() as connection:
        lock_all(connection)
        for table in metadata.sorted_tables:
            connection.execute(delete(table))
