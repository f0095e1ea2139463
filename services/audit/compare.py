"""Two databases row by row: where one does not say what the other does."""

from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import Connection, Table, select

from services.audit.store.tables import metadata

_SHOWN: Final = 80
Key = tuple[Any, ...]


def differences(kept: Connection, told: Connection) -> Iterator[str]:
    """What is wrong with the kept rows, by what the log tells; in the order of tables and keys."""
    for table in metadata.sorted_tables:
        yield from _table(table, kept, told)


def _table(table: Table, kept: Connection, told: Connection) -> Iterator[str]:
    mine, right = _rows(table, kept), _rows(table, told)
    ours, theirs = next(mine, None), next(right, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            assert ours is not None
            yield f"{_place(table, ours[0])}: the log knows nothing of this row"
            ours = next(mine, None)
        elif ours is None or theirs[0] < ours[0]:
            yield f"{_place(table, theirs[0])}: the row is missing"
            theirs = next(right, None)
        else:
            yield from _row(table, ours, theirs)
            ours, theirs = next(mine, None), next(right, None)


def _row(table: Table, ours: tuple[Key, Key], theirs: tuple[Key, Key]) -> Iterator[str]:
    for column, mine, right in zip(table.columns, ours[1], theirs[1], strict=True):
        if mine != right:
            place = _place(table, ours[0])
            yield f"{place}: {column.name} is {_short(mine)}, the log says {_short(right)}"


def _rows(table: Table, connection: Connection) -> Iterator[tuple[Key, Key]]:
    """(key, row) of each row, in the order of the keys as Python has it."""
    keys = list(table.primary_key.columns)
    ordered = [key.collate(_collation(connection)) if _is_text(key) else key for key in keys]
    found = connection.execution_options(yield_per=1000).execute(select(table).order_by(*ordered))
    at = [list(table.columns).index(key) for key in keys]
    for row in found:
        yield tuple(row[i] for i in at), tuple(row)


def _collation(connection: Connection) -> str:
    """By bytes, which for UTF-8 is by code points, as Python compares."""
    return "C" if connection.dialect.name == "postgresql" else "BINARY"


def _is_text(column: Any) -> bool:
    return bool(column.type.python_type is str)


def _place(table: Table, key: Key) -> str:
    return f"{table.name} {' '.join(map(_short, key))}"


def _short(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
