"""Comparison of log and database: the log may have been replaced by an older one."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from services.audit.record.log_reader import last_sequence
from services.audit.record.write import position
from services.audit.store.tables import events
from shared.bus.core import Bus


class ReplacedLogError(Exception):
    """Raised if the log is not the one that was recorded; the message says how that shows."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The last sequence of a stream (`last`), and of what is recorded of it (`recorded`).

    `problem` says why log and database do not match, "" if they do.
    """

    last: int
    recorded: int
    problem: str = ""


async def compare(bus: Bus, engine: Engine, stream: str) -> Agreement:
    """Compare the newest recorded event with the log.

    A replica of the log that lags behind may answer: compare again before acting on a problem.
    """
    recorded = await asyncio.to_thread(position, engine, stream)
    last = await last_sequence(bus, stream)
    if last < recorded:
        return Agreement(last, recorded, f"the log ends at {last}, the database at {recorded}")
    return Agreement(
        last, recorded, await differs(bus, await asyncio.to_thread(_read, engine, stream))
    )


@dataclass(frozen=True, slots=True)
class Newest:
    """A stream's newest recorded event; `time` is in Unix nanoseconds."""

    stream: str
    sequence: int
    subject: str
    time: int


async def differs(bus: Bus, newest: Newest | None) -> str:
    """Return how the log's event differs from the recorded one, "" if it is the same or is gone."""
    if newest is None:
        return ""
    stored = await bus.get_sequence(newest.stream, newest.sequence)
    if stored is None or (stored.subject, stored.time) == (newest.subject, newest.time):
        return ""
    return f"sequence {newest.sequence}: log has {stored.subject}, database has a different event"


def _read(engine: Engine, stream: str) -> Newest | None:
    with engine.connect() as connection:
        return newest_of(connection, stream)


def newest_of(connection: Connection, stream: str) -> Newest | None:
    """Return a stream's newest recorded event."""
    columns = events.c
    query = (
        select(columns.sequence, columns.subject, columns.recorded_at)
        .where(columns.stream == stream)
        .order_by(columns.sequence.desc())
        .limit(1)
    )
    found = connection.execute(query).first()
    return Newest(stream, found[0], found[1], found[2]) if found is not None else None
