"""Queries for enrollments, newest first, with paging."""

import heapq
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from typing import Any

from sqlalchemy import Connection, func, select

from services.audit.query.filters import EnrollmentFilter, encode_cursor, filtered
from services.audit.query.pages import MAX_LIMIT, Page, fitting
from services.audit.query.search import search


def list_enrollments(connection: Connection, filter_: EnrollmentFilter) -> Page:
    """Return a page of enrollments, newest first. Raises `BadCursorError`."""
    limit = min(max(filter_.limit, 1), MAX_LIMIT)
    branches = [_rows(connection, each, limit + 1) for each in _branches(filter_)]
    merged = heapq.merge(*branches, key=_newest, reverse=True)
    rows = list(islice(merged, limit + 1))
    limit = fitting(rows, limit)
    next_cursor = None
    if len(rows) > limit:
        next_cursor = encode_cursor(rows[limit - 1]["requested_at"], rows[limit - 1]["enrollment"])
    return Page(rows[:limit], next_cursor)


def count_enrollments(connection: Connection, filter_: EnrollmentFilter) -> int:
    """Count the enrollments on all pages. `search` is ignored."""
    counts = [
        select(func.count()).select_from(filtered(each).order_by(None).subquery())
        for each in _branches(replace(filter_, cursor=None))
    ]
    return sum(int(connection.execute(each).scalar_one()) for each in counts)


def _branches(filter_: EnrollmentFilter) -> Iterator[EnrollmentFilter]:
    """Split into one filter per state and action: an index has each in order, but no union."""
    for state, action in product(filter_.states or (None,), filter_.actions or (None,)):
        yield replace(
            filter_,
            states=(state,) if state is not None else (),
            actions=(action,) if action is not None else (),
        )


def _newest(row: dict[str, Any]) -> tuple[int, str]:
    return row["requested_at"], row["enrollment"]


def _rows(connection: Connection, filter_: EnrollmentFilter, limit: int) -> list[dict[str, Any]]:
    if filter_.search:
        return search(connection, filter_, limit)
    return [dict(row) for row in connection.execute(filtered(filter_).limit(limit)).mappings()]
