"""Storage of events in batches, with the rows projected from them and the stream's position."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    RowMapping,
    select,
)

from services.audit.record.digest import advance
from services.audit.record.enrollments import enrollment_of
from services.audit.record.event_row import DecodedMessage, RecordedEvent, row
from services.audit.record.merge import execute_many, insert_into, known, merge
from services.audit.record.positions import Position, move, read_position
from services.audit.record.projection import fold
from services.audit.store.engine import lock_stream
from services.audit.store.tables import events
from shared.log.envelope import Stored

_AT_ONCE: Final = 1000


class EmptiedError(Exception):
    """Raised if the database is behind the position that its writer continues from."""


def position(engine: Engine, stream: str) -> int:
    """Return the last recorded sequence of a stream, 0 if there is none."""
    with engine.connect() as connection:
        return read_position(connection, stream).sequence


def signed_place(engine: Engine, stream: str) -> tuple[int, str]:
    """Return (sequence, digest) as a checkpoint of the stream would state them."""
    with engine.connect() as connection:
        place = read_position(connection, stream)
    return place.sequence, place.digest


@cache
def _recording(dialect: str) -> Insert:
    return insert_into(dialect, events).on_conflict_do_nothing()


def everything(_: DecodedMessage) -> bool:
    """Select all of a stream."""
    return True


def store(
    engine: Engine,
    stream: str,
    messages: Sequence[Stored],
    is_selected: Callable[[DecodedMessage], bool] = everything,
    *,
    after: int = 0,
) -> int:
    """Store events, their rows and the position in one transaction; return how many are new.

    Messages at or before the position are stored already: a redelivery adds nothing. Writers of a
    stream take turns, so that none counts what another has stored. Messages that `is_selected`
    rejects are not stored, but counted.

    `messages` must be all that the log has after the position `after`, up to the last of them. If
    the database is behind `after`, because `audit reconcile` emptied it or a backup was restored,
    storing them would leave a gap that no later look finds: this raises `EmptiedError`.
    """
    with engine.begin() as connection:
        lock_stream(connection, stream)
        place = read_position(connection, stream)
        if place.sequence < after:
            raise EmptiedError(f"{stream}: at {place.sequence}, expected {after}")
        new = [message for message in messages if message.sequence > place.sequence]
        if not new:
            return 0
        read = [found for message in new if is_selected(found := DecodedMessage.of(message))]
        rows, last = [row(stream, found) for found in read], new[-1].sequence
        if rows:
            execute_many(connection, _recording(connection.dialect.name), rows)
        move(connection, stream, replace(_projected(connection, read, place), sequence=last))
    return len(new)


def _projected(connection: Connection, read: Sequence[DecodedMessage], place: Position) -> Position:
    """Merge these events into the model; return the place after them."""
    about = {name for found in read if (name := enrollment_of(found.stored)) is not None}
    merge(connection, fold(read, known(connection, about)))
    digest = place.digest
    for found in read:
        digest = advance(digest, found.digest)
    return replace(place, digest=digest)


def events_after(engine: Engine, stream: str, sequence: int) -> list[RecordedEvent]:
    """Return the first recorded events of a stream after this sequence, 1000 at most."""
    columns = events.c
    query = (
        select(events)
        .where(columns.stream == stream, columns.sequence > sequence)
        .order_by(columns.sequence)
        .limit(_AT_ONCE)
    )
    with engine.connect() as connection:
        return [_recorded(found) for found in connection.execute(query).mappings()]


def rows_between(
    connection: Connection, stream: str, first: int, last: int
) -> dict[int, dict[str, Any]]:
    """Return the rows of a stream's events from `first` to `last`, by sequence; 1000 at most."""
    columns = events.c
    query = (
        select(events)
        .where(columns.stream == stream, columns.sequence >= first, columns.sequence <= last)
        .order_by(columns.sequence)
        .limit(_AT_ONCE)
    )
    return {row["sequence"]: dict(row) for row in connection.execute(query).mappings()}


def _recorded(found: RowMapping) -> RecordedEvent:
    message = None
    if found["payload"] is not None:
        message = Stored(
            found["subject"],
            found["payload"],
            json.loads(found["headers"]),
            found["sequence"],
            found["recorded_at"],
        )
    return RecordedEvent(
        sequence=found["sequence"],
        subject=found["subject"],
        type=found["type"],
        recorded_at=found["recorded_at"],
        digest=found["digest"],
        message=message,
    )
