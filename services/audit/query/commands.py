"""Queries for operators' commands and their results, newest first."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, select, tuple_

from services.audit.query.filters import decode_cursor, encode_cursor
from services.audit.query.pages import MAX_LIMIT, Page, fitting
from services.audit.store.commands import result
from services.audit.store.tables import commands, enrollments


@dataclass(frozen=True, slots=True)
class CommandFilter:
    """Filter of commands; None matches all."""

    operator: str | None = None
    kind: str | None = None
    cursor: str | None = None
    limit: int = 50


def list_commands(connection: Connection, filter_: CommandFilter) -> Page:
    """Return a page of commands with their `result`, newest first. Raises `BadCursorError`."""
    limit = min(max(filter_.limit, 1), MAX_LIMIT)
    found = connection.execute(ordered(filter_).limit(limit + 1)).mappings()
    rows = [row | {"result": result(row)} for row in map(dict, found)]
    limit, next_cursor = fitting(rows, limit), None
    if len(rows) > limit:
        next_cursor = encode_cursor(rows[limit - 1]["ordered_at"], rows[limit - 1]["subject"])
    return Page(rows[:limit], next_cursor)


def ordered(filter_: CommandFilter) -> Select[Any]:
    """Return the query for commands joined with the state of their enrollments."""
    columns = commands.c
    of_it = enrollments.c.enrollment == columns.enrollment
    query = (
        select(commands, enrollments.c.state, enrollments.c.device, enrollments.c.reason)
        .outerjoin(enrollments, of_it)
        .where(columns.ordered_at.is_not(None))  # otherwise the row has answers without a command
        .order_by(columns.ordered_at.desc(), columns.subject.desc())
    )
    for column, value in ((columns.operator, filter_.operator), (columns.kind, filter_.kind)):
        if value is not None:
            query = query.where(column == value)
    if filter_.cursor is not None:
        place = tuple_(columns.ordered_at, columns.subject)
        query = query.where(place < tuple_(*decode_cursor(filter_.cursor)))
    return query
