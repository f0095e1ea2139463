"""Filling of a database up to a sequence of the log, for commands; the service has recorders."""

import asyncio
from collections.abc import AsyncIterator, Callable

from sqlalchemy import Engine

from services.audit.record.event_row import DecodedMessage
from services.audit.record.log_reader import read
from services.audit.record.write import EmptiedError, everything, position, store
from shared.bus.core import Bus


async def fill(
    bus: Bus,
    engine: Engine,
    stream: str,
    last: int,
    is_selected: Callable[[DecodedMessage], bool] = everything,
) -> AsyncIterator[int]:
    """Store what the log has after the database's position, up to `last`; yield counts by batch.

    Others may store at the same time. If somebody empties the database, it starts over.
    """
    while True:
        done = await asyncio.to_thread(position, engine, stream)
        try:
            async for batch in read(bus, stream, done + 1, last):
                yield await asyncio.to_thread(store, engine, stream, batch, is_selected, after=done)
                done = batch[-1].sequence if batch else done
        except EmptiedError:
            continue
        return
