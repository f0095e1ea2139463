"""Row-by-row comparison of two databases."""

from collections.abc import Iterator, Mapping
from typing import Final

from services.audit.store.engine import Connection
from services.audit.store.rows import TableRows, Values, tables

_SHOWN: Final = 80


def differences(actual: Connection, expected: Connection) -> Iterator[str]:
    """Yield what is wrong in `actual`, compared with `expected`, the database made from the log.

    In the order of tables and keys.
    """
    for ours, theirs in zip(tables(actual), tables(expected), strict=True):
        yield from _table(ours, theirs)


def _table(actual: TableRows, expected: TableRows) -> Iterator[str]:
    ours, theirs = next(actual.rows, None), next(expected.rows, None)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and ours[0] < theirs[0]):
            assert ours is not None
            yield f"{_place(actual, ours[0])}: row is not derived from the log"
            ours = next(actual.rows, None)
        elif ours is None or theirs[0] < ours[0]:
            yield f"{_place(actual, theirs[0])}: row is missing"
            theirs = next(expected.rows, None)
        else:
            yield from _row(actual, ours, theirs)
            ours, theirs = next(actual.rows, None), next(expected.rows, None)


def _row(
    table: TableRows, ours: tuple[Values, Values], theirs: tuple[Values, Values]
) -> Iterator[str]:
    mine, right = (dict(zip(table.columns, row, strict=True)) for row in (ours[1], theirs[1]))
    yield from row_differences(_place(table, ours[0]), mine, right)


def row_differences(
    place: str, ours: Mapping[str, object], theirs: Mapping[str, object]
) -> Iterator[str]:
    """Yield what is wrong in a row, by column, compared with the row made from the log."""
    for column, right in theirs.items():
        mine = ours[column]
        if mine != right:
            yield f"{place}: {column} is {_short(mine)}, expected {_short(right)} from the log"


def _place(table: TableRows, key: Values) -> str:
    return f"{table.name} {' '.join(map(_short, key))}"


def _short(value: object) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
