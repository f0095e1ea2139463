"""Lists of enrollments, newest first, a page at a time, by filters that use indexes."""

import base64
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    exists,
    func,
    select,
    tuple_,
)

from services.audit.tables import certificates, enrollments, names

# With more names than this that begin so, the newest enrollments are looked through instead of
# those of the names sorted: at a million rows neither takes long on its side of the line.
_FEW: Final = 200_000
_LAST: Final = "\U0010ffff"
MAX_LIMIT: Final = 500
_BEYOND: Final = 2**63


class BadCursorError(ValueError):
    """Raised for a cursor that no list gave."""


@dataclass(frozen=True, slots=True)
class Wanted:
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


@dataclass(frozen=True, slots=True)
class Page:
    """Rows by column name, and the cursor of what follows, None at the end."""

    rows: Sequence[dict[str, Any]]
    following: str | None


def list_enrollments(connection: Connection, wanted: Wanted) -> Page:
    """A page of the newest; `BadCursorError`."""
    limit = min(max(wanted.limit, 1), MAX_LIMIT)
    branches = [list(_rows(connection, each, limit + 1)) for each in _branches(wanted)]
    merged = heapq.merge(*branches, key=_newest, reverse=True)
    rows = list(islice(merged, limit + 1))
    following = None
    if len(rows) > limit:
        following = _cursor(rows[limit - 1]["requested_at"], rows[limit - 1]["enrollment"])
    return Page(rows[:limit], following)


def count_enrollments(connection: Connection, wanted: Wanted) -> int:
    """How many there are on all pages together; `search` does not count."""
    counts = [
        select(func.count()).select_from(_filtered(each).order_by(None).subquery())
        for each in _branches(replace(wanted, cursor=None))
    ]
    return sum(int(connection.execute(each).scalar_one()) for each in counts)


def list_certificates(connection: Connection, wanted: Wanted) -> Page:
    """A page of the newest certificates: `profile`, `cursor`, `limit` count. `BadCursorError`."""
    columns, limit = certificates.c, min(max(wanted.limit, 1), MAX_LIMIT)
    query = select(certificates).order_by(
        columns.recorded_at.desc(), columns.issuer.desc(), columns.serial.desc()
    )
    if wanted.profile is not None:
        query = query.where(columns.profile == wanted.profile)
    if wanted.cursor is not None:
        place = tuple_(columns.recorded_at, columns.issuer, columns.serial)
        query = query.where(place < tuple_(*_place(wanted.cursor, 3)))
    rows = [dict(row) for row in connection.execute(query.limit(limit + 1)).mappings()]
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = _cursor(last["recorded_at"], last["issuer"], last["serial"])
    return Page(rows[:limit], following)


def _branches(wanted: Wanted) -> Iterator[Wanted]:
    """One list for each state and action: an index has each of them in order, not all together."""
    for state, action in product(wanted.states or (None,), wanted.actions or (None,)):
        yield replace(wanted, states=(state,) if state else (), actions=(action,) if action else ())


def _newest(row: dict[str, Any]) -> tuple[int, str]:
    return row["requested_at"], row["enrollment"]


def _rows(connection: Connection, wanted: Wanted, limit: int) -> Iterator[dict[str, Any]]:
    query = _filtered(wanted).limit(limit)
    if wanted.search:
        query = _searched(connection, wanted, wanted.search.strip().lower(), limit)
    return (dict(row) for row in connection.execute(query).mappings())


def _filtered(wanted: Wanted) -> Select[Any]:
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
    return query.where(*_times(enrollments, wanted))


def _times(table: Table, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    """The window of time, and what comes after the cursor."""
    columns = table.c
    if wanted.since is not None:
        yield columns.requested_at >= wanted.since
    if wanted.until is not None:
        yield columns.requested_at < wanted.until
    if wanted.cursor is not None:
        place = tuple_(columns.requested_at, columns.enrollment)
        yield place < tuple_(*_place(wanted.cursor))


def _searched(connection: Connection, wanted: Wanted, name: str, limit: int) -> Select[Any]:
    """Few matches are sorted; of many the newest are found sooner by looking at the newest."""
    query = _filtered(wanted).limit(limit)
    begins = (names.c.name >= name, names.c.name < name + _LAST)
    beyond = select(names.c.name).where(*begins).offset(_FEW).limit(1)
    if connection.execute(beyond).first() is not None:
        return query.where(exists().where(names.c.enrollment == enrollments.c.enrollment, *begins))
    few = select(names.c.enrollment, names.c.requested_at).where(*begins, *_times(names, wanted))
    if not (wanted.profile or wanted.states or wanted.actions):
        # No other table is asked for more than a page of them.
        once = few.group_by(names.c.enrollment, names.c.requested_at)
        few = _sorted(once, names).limit(limit)
    chosen = few.subquery()
    return _sorted(query, enrollments).where(
        enrollments.c.enrollment.in_(select(chosen.c.enrollment))
    )


def _sorted(query: Select[Any], table: Table) -> Select[Any]:
    """In an order that no index has: else PostgreSQL hopes to find the few among the newest."""
    columns = table.c
    newest = ((columns.requested_at + 0).desc(), columns.enrollment.desc())
    return query.order_by(None).order_by(*newest)


def _cursor(*place: int | str) -> str:
    """Where a page ended: nobody's business but the next page's."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode("ascii").rstrip("=")


def _place(cursor: str, length: int = 2) -> list[int | str]:
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
    """Whether a row's key can be this: subjects and serial numbers are printable ASCII."""
    return isinstance(part, str) and part.isascii() and part.isprintable()
