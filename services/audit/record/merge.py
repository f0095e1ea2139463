"""Merge of model changes into tables: each row by its key, in a few statements per batch."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    Table,
    bindparam,
    case,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.compiler import SQLCompiler

from services.audit.record.changes import Changes
from services.audit.record.enrollments import Known
from services.audit.store import tables as t

# Columns that keep the value of a row's first event.
_FIRST: Final = frozenset({"requested_at", "first_seen", "created_at"})
_ADDED: Final = frozenset({"issued", "refused", "count", "answered"})
_RECORDED: Final = frozenset({"recorded_at"})
# Columns of the newest event: shards are recorded beside each other, in any order.
_LAST: Final = frozenset({"last_seen", "last_enrollment", "last_state"})
_KNOWN: Final = select(
    t.enrollments.c.enrollment,
    t.enrollments.c.device,
    t.enrollments.c.challenge,
    t.enrollments.c.message_type,
    t.enrollments.c.state,
    t.enrollments.c.requested_at,
).where(t.enrollments.c.enrollment.in_(bindparam("names", expanding=True)))


def known(connection: Connection, enrollments: Collection[str]) -> dict[str, Known]:
    """Return what the rows of these enrollments hold already."""
    found = connection.execute(_KNOWN, {"names": list(enrollments)})
    return {row[0]: Known(*row[1:]) for row in found}


def merge(connection: Connection, changes: Changes) -> None:
    """Write all changes; the caller's transaction makes it all or nothing."""
    counters = [
        {"hour": hour, "profile": profile, "challenge": challenge, "result": result, "count": n}
        for (hour, profile, challenge, result), n in changes.counters.items()
    ]
    _upsert(connection, t.enrollments, changes.enrollments.values())
    _upsert(connection, t.names, changes.names.values())
    _upsert(connection, t.certificates, changes.certificates.values(), first=_RECORDED)
    _upsert(connection, t.devices, changes.devices.values())
    _upsert(connection, t.counters, counters)
    _upsert(connection, t.replicas, changes.replicas.values())
    _upsert(connection, t.reloads, changes.reloads.values())
    _upsert(connection, t.challenges, changes.challenges.values())
    _upsert(connection, t.dead_letters, changes.dead_letters.values())
    _upsert(connection, t.orphans, changes.orphans.values())
    _upsert(connection, t.retries, changes.retries.values())
    _upsert(connection, t.commands, changes.commands.values())


def _upsert(
    connection: Connection,
    table: Table,
    rows: Iterable[Mapping[str, Any]],
    first: frozenset[str] = frozenset(),
) -> None:
    """Execute one statement for all rows, in the order of their keys: writers cannot deadlock."""
    keys = [column.name for column in table.primary_key]
    ordered = sorted(rows, key=lambda row: [row[k] for k in keys])
    if ordered:
        execute_many(connection, _upserting(connection.dialect.name, table, first), ordered)


def execute_many(
    connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Execute an INSERT for all rows; a column that a row lacks is null.

    The statement is compiled once, and rows go to the driver as they are: SQLAlchemy takes longer
    to prepare parameters than SQLite takes to store them.
    """
    sql, columns, by_name = _compiled(connection.dialect, statement)
    if by_name:
        parameters: list[Any] = [{name: row.get(name) for name in columns} for row in rows]
    else:
        parameters = [tuple(row.get(name) for name in columns) for row in rows]
    connection.exec_driver_sql(sql, parameters)


@cache
def _compiled(dialect: Dialect, statement: Insert) -> tuple[str, tuple[str, ...], bool]:
    """Return an INSERT as SQL, its columns in order, and whether its parameters go by name."""
    columns = tuple(statement.table.c.keys())
    compiled = statement.compile(dialect=dialect, column_keys=list(columns))
    assert isinstance(compiled, SQLCompiler)
    if compiled.positional:
        return compiled.string, tuple(compiled.positiontup or ()), False
    return compiled.string, columns, True


@cache  # one for each table: building a statement takes longer than executing it
def _upserting(dialect: str, table: Table, first: frozenset[str]) -> Insert:
    keys = [column.name for column in table.primary_key]
    insert = insert_into(dialect, table)
    new = {
        name: _merged(table, name, insert.excluded, first)
        for name in table.c.keys()  # noqa: SIM118 - a collection of columns is not a mapping
        if name not in keys
    }
    return insert.on_conflict_do_update(index_elements=keys, set_=new)


def insert_into(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return the dialect's INSERT, which has ON CONFLICT."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def _merged(
    table: Table, name: str, excluded: ReadOnlyColumnCollection[str, Any], first: frozenset[str]
) -> ColumnElement[Any]:
    """Return the sum, the first or the last value, or the new value unless it is null."""
    old: ColumnElement[Any] = table.c[name]
    new: ColumnElement[Any] = excluded[name]
    if name in _LAST:
        return case((excluded["last_seen"] >= table.c["last_seen"], new), else_=old)
    if name in _ADDED:
        return old + new
    if name in _FIRST or name in first:
        return func.coalesce(old, new)
    return func.coalesce(new, old)
