"""Comparison of log and database: the log may have been replaced by an older one."""

import asyncio
from dataclasses import dataclass

from sqlalchemy import Engine, select

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
    newest = await asyncio.to_thread(_newest, engine, stream)
    if newest is None:
        return Agreement(last, recorded)
    sequence, subject, time = newest
    stored = await bus.get_sequence(stream, sequence)
    if stored is None or (stored.subject, stored.time) == (subject, time):
        return Agreement(last, recorded)
    problem = f"sequence {sequence}: log has {stored.subject}, database has a different event"
    return Agreement(last, recorded, problem)


def _newest(engine: Engine, stream: str) -> tuple[int, str, int] | None:
    """Return sequence, subject and time (Unix ns) of a stream's newest recorded event."""
    columns = events.c
    query = (
        select(columns.sequence, columns.subject, columns.recorded_at)
        .where(columns.stream == stream)
        .order_by(columns.sequence.desc())
        .limit(1)
    )
    with engine.connect() as connection:
        found = connection.execute(query).first()
    return (found[0], found[1], found[2]) if found is not None else None
