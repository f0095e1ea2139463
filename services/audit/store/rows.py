"""All rows that are made from the log, in the same order on every database."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Table, select

from services.audit.store.tables import metadata

Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table's name, its columns, and (key, values) of each row in key order."""

    name: str
    columns: tuple[str, ...]
    rows: Iterator[tuple[Values, Values]]


def tables(connection: Connection) -> Iterator[TableRows]:
    """Yield every table that is made from the log."""
    for table in metadata.sorted_tables:
        names = tuple(column.name for column in table.columns)
        yield TableRows(table.name, names, _rows(table, connection))


def _rows(table: Table, connection: Connection) -> Iterator[tuple[Values, Values]]:
    """Yield the rows in the order in which Python sorts their keys."""
    keys = list(table.primary_key.columns)
    ordered = [key.collate(_collation(connection)) if _is_text(key) else key for key in keys]
    found = connection.execution_options(yield_per=1000).execute(select(table).order_by(*ordered))
    at = [list(table.columns).index(key) for key in keys]
    for row in found:
        yield tuple(row[i] for i in at), tuple(row)


def _collation(connection: Connection) -> str:
    """Return the collation by bytes: for UTF-8 that is by code points, as Python compares."""
    return "C" if connection.dialect.name == "postgresql" else "BINARY"


def _is_text(column: Column[Any]) -> bool:
    return bool(column.type.python_type is str)
