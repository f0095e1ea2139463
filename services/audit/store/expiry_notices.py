"""Up to which certificate the webhook was notified of those that expire, for each period."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, insert, or_, select, update

from services.audit.store.engine import lock_stream
from services.audit.store.tables import expiry_notices

Place = tuple[int, str, str]
_C = expiry_notices.c


@dataclass(frozen=True, slots=True)
class Hold:
    """The right of one replica to notify, until `until` (Unix seconds). `holder` names it."""

    seconds: int
    holder: str
    until: int


def take(engine: Engine, hold: Hold, now: int) -> Place | None:
    """Take or keep a hold; return the place (end, issuer, serial) to continue after.

    None if another replica has it at `now` (Unix seconds). The place is (0, "", "") at first.
    """
    with engine.begin() as connection:
        lock_stream(connection, expiry_notices.name)
        row = connection.execute(_row(hold.seconds)).first()
        if row is None:
            values = {"not_after": 0, "issuer": "", "serial": "", **_values(hold)}
            connection.execute(insert(expiry_notices).values(seconds=hold.seconds, **values))
            return 0, "", ""
        is_free = or_(_C.holder == hold.holder, _C.held_until < now)
        if not _changed(connection, hold.seconds, is_free, _values(hold)):
            return None
        return row.not_after, row.issuer, row.serial


def move(engine: Engine, hold: Hold, place: Place) -> bool:
    """Record that everything up to a place was notified of; extend the hold.

    Return False, and change nothing, if another replica has taken the hold.
    """
    end, issuer, serial = place
    values = {"not_after": end, "issuer": issuer, "serial": serial, **_values(hold)}
    with engine.begin() as connection:
        return _changed(connection, hold.seconds, _C.holder == hold.holder, values)


def _row(seconds: int) -> Any:
    return select(expiry_notices).where(_C.seconds == seconds)


def _values(hold: Hold) -> dict[str, Any]:
    return {"holder": hold.holder, "held_until": hold.until}


def _changed(
    connection: Connection, seconds: int, condition: ColumnElement[bool], values: dict[str, Any]
) -> bool:
    query = update(expiry_notices).where(_C.seconds == seconds, condition).values(**values)
    return connection.execute(query).rowcount == 1
