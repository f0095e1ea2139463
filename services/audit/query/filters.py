"""Filters of enrollments as conditions that indexes can answer, and cursors of pages."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, select, tuple_

from services.audit.store.tables import enrollments

_BEYOND: Final = 2**63


class BadCursorError(ValueError):
    """Raised for a cursor that no list returned."""


@dataclass(frozen=True, slots=True)
class EnrollmentFilter:
    """Filter of enrollments.

    `states` and `actions` match if they contain the value or are empty. `search` is a name or the
    beginning of one. `since` (inclusive) and `until` (exclusive) are Unix nanoseconds.
    """

    profile: str | None = None
    states: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    search: str | None = None
    since: int | None = None
    until: int | None = None
    cursor: str | None = None
    limit: int = 50


def filtered(filter_: EnrollmentFilter) -> Select[Any]:
    """Return the query for a filter with at most one state and one action, newest first."""
    columns = enrollments.c
    query = select(enrollments).order_by(columns.requested_at.desc(), columns.enrollment.desc())
    for column, value in (
        (columns.profile, filter_.profile),
        (columns.state, next(iter(filter_.states), None)),
        (columns.action, next(iter(filter_.actions), None)),
    ):
        if value is not None:
            query = query.where(column == value)
    return query.where(*times(enrollments, filter_))


def times(table: Table, filter_: EnrollmentFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for the time range and the cursor."""
    columns = table.c
    if filter_.since is not None:
        yield columns.requested_at >= filter_.since
    if filter_.until is not None:
        yield columns.requested_at < filter_.until
    if filter_.cursor is not None:
        place = tuple_(columns.requested_at, columns.enrollment)
        yield place < tuple_(*decode_cursor(filter_.cursor))


def encode_cursor(*place: int | str) -> str:
    """Return an opaque cursor for the sort key of a page's last row."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode("ascii").rstrip("=")


def decode_cursor(cursor: str, length: int = 2) -> list[int | str]:
    """Return the sort key in a cursor: a time and what distinguishes rows of that time.

    Raises:
        BadCursorError: the cursor is not a key of `length` parts.
    """
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
    """Return whether this could be a row's key: any text that the database can store."""
    if not isinstance(part, str) or "\0" in part:
        return False
    return part == part.encode("utf-8", "replace").decode()
