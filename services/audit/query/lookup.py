"""Queries of the command line: recent enrollments, and the history of one."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from services.audit.query.enrollments import list_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.query.history import history_of
from services.audit.query.names import find_exact, suggest
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
        if search and (match := history_of(connection, search)) is not None:
            fits = state in (None, match.enrollment["state"])
            return [_line(match.enrollment)] if fits else []
        while len(found) < limit:
            states = (state,) if state is not None else ()
            size = min(limit - len(found), MAX_LIMIT)
            filter_ = EnrollmentFilter(profile, states, search=search, cursor=cursor, limit=size)
            page = list_enrollments(connection, filter_)
            found += map(_line, page.rows)
            cursor = page.next_cursor
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


def exact_lines(engine: Engine, text: str, state: State | None = None) -> list[EnrollmentLine]:
    """Return the newest enrollments (up to 10) that `text` names exactly, newest first."""
    with engine.connect() as connection:
        return list(map(_line, find_exact(connection, text, _SEVERAL, state)))


def suggested_lines(engine: Engine, text: str, state: State | None = None) -> list[EnrollmentLine]:
    """Return a few enrollments with a name that starts with `text`, as suggestions."""
    with engine.connect() as connection:
        return list(map(_line, suggest(connection, text, state)))


def history(engine: Engine, text: str) -> list[dict[str, Any]]:
    """Return all events of the newest enrollment that `text` names exactly."""
    with engine.connect() as connection:
        rows = find_exact(connection, text, 1)
        match = history_of(connection, rows[0]["enrollment"]) if rows else None
    return list(match.events) if match is not None else []
