"""Queries of the command line: recent enrollments, and the history of one."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from services.audit.query.enrollments import list_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.query.history import story_of
from services.audit.query.names import named, near
from services.audit.query.pages import MAX_LIMIT
from shared.log.enrollment import State

_SEVERAL: Final = 10


@dataclass(frozen=True, slots=True)
class EnrollmentLine:
    """One enrollment in a list; times are Unix nanoseconds of the log."""

    enrollment: str
    profile: str
    transaction_id: str
    device: str
    state: str
    result: str
    serial: str
    requested_at: int


def recent(
    engine: Engine,
    limit: int,
    profile: str | None = None,
    search: str | None = None,
    state: State | None = None,
) -> list[EnrollmentLine]:
    """Return up to `limit` enrollments, newest first.

    `search` is as in `EnrollmentFilter`, or the key of one enrollment.
    """
    found: list[EnrollmentLine] = []
    cursor: str | None = None
    with engine.connect() as connection:
        if search and (told := story_of(connection, search)) is not None:
            fits = state in (None, told.enrollment["state"])
            return [_line(told.enrollment)] if fits else []
        while len(found) < limit:
            states = (state,) if state is not None else ()
            size = min(limit - len(found), MAX_LIMIT)
            wanted = EnrollmentFilter(profile, states, search=search, cursor=cursor, limit=size)
            page = list_enrollments(connection, wanted)
            found += map(_line, page.rows)
            cursor = page.following
            if cursor is None:
                break
    return found


def _line(row: dict[str, Any]) -> EnrollmentLine:
    state = row["state"]
    return EnrollmentLine(
        enrollment=row["enrollment"],
        profile=row["profile"],
        transaction_id=row["transaction_id"] or "",
        device=row["device"] or "",
        state=state,
        result=row["reason"] or ("" if state == State.REQUESTED else state),
        serial=row["serial"] or "",
        requested_at=row["requested_at"],
    )


def named_lines(engine: Engine, wanted: str, state: State | None = None) -> list[EnrollmentLine]:
    """Return the newest enrollments (up to 10) that `wanted` names exactly, newest first."""
    with engine.connect() as connection:
        return list(map(_line, named(connection, wanted, _SEVERAL, state)))


def near_lines(engine: Engine, wanted: str, state: State | None = None) -> list[EnrollmentLine]:
    """Return a few enrollments with a name that starts with `wanted`, as suggestions."""
    with engine.connect() as connection:
        return list(map(_line, near(connection, wanted, state)))


def story(engine: Engine, wanted: str) -> list[dict[str, Any]]:
    """Return all events of the newest enrollment that `wanted` names exactly."""
    with engine.connect() as connection:
        rows = named(connection, wanted, 1)
        told = story_of(connection, rows[0]["enrollment"]) if rows else None
    return list(told.events) if told is not None else []
