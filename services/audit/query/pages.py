"""Pages of lists: their size, and the cursor of the next one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.limits import PAGE_BYTES

MAX_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Rows by column name, and the cursor of the next page (None on the last one)."""

    rows: Sequence[dict[str, Any]]
    next_cursor: str | None


def fitting(rows: Sequence[dict[str, Any]], limit: int) -> int:
    """Return how many of the first `limit` rows fit on a page of `PAGE_BYTES`, at least one.

    Sizes are estimated with `repr`, which escapes control characters about as JSON does.
    """
    size = 0
    for count, row in enumerate(rows[:limit]):
        size += sum(len(repr(value)) + len(name) for name, value in row.items())
        if count and size > PAGE_BYTES:
            return count
    return limit
