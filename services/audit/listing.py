"""Lists of enrollments and certificates, newest first, a page at a time."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, Final

from sqlalchemy import Connection, func, select, tuple_

from services.audit.filters import Wanted, cursor_of, filtered, place_of
from services.audit.searching import search
from services.audit.store.tables import certificates
from shared.limits import PAGE_BYTES

MAX_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Rows by column name, and the cursor of what follows, None at the end."""

    rows: Sequence[dict[str, Any]]
    following: str | None


def list_enrollments(connection: Connection, wanted: Wanted) -> Page:
    """A page of the newest; `BadCursorError`."""
    limit = min(max(wanted.limit, 1), MAX_LIMIT)
    branches = [_rows(connection, each, limit + 1) for each in _branches(wanted)]
    merged = heapq.merge(*branches, key=_newest, reverse=True)
    rows = list(islice(merged, limit + 1))
    limit = fitting(rows, limit)
    following = None
    if len(rows) > limit:
        following = cursor_of(rows[limit - 1]["requested_at"], rows[limit - 1]["enrollment"])
    return Page(rows[:limit], following)


def count_enrollments(connection: Connection, wanted: Wanted) -> int:
    """How many there are on all pages together; `search` does not count."""
    counts = [
        select(func.count()).select_from(filtered(each).order_by(None).subquery())
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
        query = query.where(place < tuple_(*place_of(wanted.cursor, 3)))
    rows = [dict(row) for row in connection.execute(query.limit(limit + 1)).mappings()]
    limit, following = fitting(rows, limit), None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = cursor_of(last["recorded_at"], last["issuer"], last["serial"])
    return Page(rows[:limit], following)


def fitting(rows: Sequence[dict[str, Any]], limit: int) -> int:
    """Return how many of the first `limit` rows make one page: at least one, `PAGE_BYTES` of them.

    `repr` writes control characters about as long as JSON does.
    """
    size = 0
    for count, row in enumerate(rows[:limit]):
        size += sum(len(repr(value)) + len(name) for name, value in row.items())
        if count and size > PAGE_BYTES:
            return count
    return limit


def _branches(wanted: Wanted) -> Iterator[Wanted]:
    """One list for each state and action: an index has each of them in order, not all together."""
    for state, action in product(wanted.states or (None,), wanted.actions or (None,)):
        yield replace(
            wanted,
            states=(state,) if state is not None else (),
            actions=(action,) if action is not None else (),
        )


def _newest(row: dict[str, Any]) -> tuple[int, str]:
    return row["requested_at"], row["enrollment"]


def _rows(connection: Connection, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
    if wanted.search:
        return search(connection, wanted, limit)
    return [dict(row) for row in connection.execute(filtered(wanted).limit(limit)).mappings()]
