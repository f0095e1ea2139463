"""Which enrollments are asked for, as conditions that indexes answer, and where a page ended."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, select, tuple_

from services.audit.store.tables import enrollments

_BEYOND: Final = 2**63


class BadCursorError(ValueError):
    """Raised for a cursor that no list gave."""


@dataclass(frozen=True, slots=True)
class EnrollmentFilter:
    """Which enrollments; times in Unix nanoseconds, `search` a name or the beginning of one.

    In any of these states, of any of these actions; none given is all.
    """

    profile: str | None = None
    states: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    search: str | None = None
    since: int | None = None
    until: int | None = None
    cursor: str | None = None
    limit: int = 50


def filtered(wanted: EnrollmentFilter) -> Select[Any]:
    """What one branch wants, newest first."""
    columns = enrollments.c
    query = select(enrollments).order_by(columns.requested_at.desc(), columns.enrollment.desc())
    for column, value in (
        (columns.profile, wanted.profile),
        (columns.state, next(iter(wanted.states), None)),
        (columns.action, next(iter(wanted.actions), None)),
    ):
        if value is not None:
            query = query.where(column == value)
    return query.where(*times(enrollments, wanted))


def times(table: Table, wanted: EnrollmentFilter) -> Iterator[ColumnElement[bool]]:
    """The window of time, and what comes after the cursor."""
    columns = table.c
    if wanted.since is not None:
        yield columns.requested_at >= wanted.since
    if wanted.until is not None:
        yield columns.requested_at < wanted.until
    if wanted.cursor is not None:
        place = tuple_(columns.requested_at, columns.enrollment)
        yield place < tuple_(*place_of(wanted.cursor))


def cursor_of(*place: int | str) -> str:
    """Where a page ended: nobody's business but the next page's."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode("ascii").rstrip("=")


def place_of(cursor: str, length: int = 2) -> list[int | str]:
    """A time and what tells rows of that time apart."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        place = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
    except (ValueError, RecursionError):
        raise BadCursorError("not a cursor of this list") from None
    if not isinstance(place, list) or len(place) != length:
        raise BadCursorError("not a cursor of this list")
    at, *rest = place
    if type(at) is not int or not 0 <= at < _BEYOND or not all(map(_is_key, rest)):
        raise BadCursorError("not a cursor of this list")
    return place


def _is_key(part: object) -> bool:
    """Whether a row's key can be this, however odd: a text that a database takes."""
    if not isinstance(part, str) or "\0" in part:
        return False
    return part == part.encode("utf-8", "replace").decode()
