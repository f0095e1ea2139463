"""Positions: how far each stream is in the database, and the digest for its checkpoint."""

from dataclasses import dataclass
from functools import cache
from typing import Final

from sqlalchemy import Connection, Insert, bindparam, select

from services.audit.record.digest import BEGIN
from services.audit.record.merge import insert_into
from services.audit.store.tables import positions


@dataclass(frozen=True, slots=True)
class Position:
    """The last recorded event of a stream, and the digest up to that."""

    sequence: int = 0
    digest: str = BEGIN


_POSITION: Final = select(positions.c.sequence, positions.c.digest).where(
    positions.c.stream == bindparam("stream")
)


def read_position(connection: Connection, stream: str) -> Position:
    """Return where a stream stands; the beginning if nothing was recorded yet."""
    found = connection.execute(_POSITION, {"stream": stream}).first()
    return Position(*found) if found is not None else Position()


def move(connection: Connection, stream: str, place: Position) -> None:
    """Store where a stream stands now."""
    values = {
        "stream": stream,
        "sequence": place.sequence,
        "digest": place.digest,
    }
    connection.execute(_moving(connection.dialect.name), values)


@cache
def _moving(dialect: str) -> Insert:
    insert = insert_into(dialect, positions)
    new = {name: insert.excluded[name] for name in ("sequence", "digest")}
    return insert.on_conflict_do_update(index_elements=["stream"], set_=new)
