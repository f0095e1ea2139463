"""URLs of the supported databases, and recognition of SQLite files."""

from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared.config.load import SettingsError

_DRIVERS: Final = frozenset(
    {"sqlite", "sqlite+pysqlite", "postgresql", "postgres", "postgresql+psycopg"}
)


def read_url(text: str) -> URL:
    """Parse the URL of a SQLite or PostgreSQL database.

    Raises `SettingsError` for anything else; it never quotes the URL, which may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise SettingsError("not a database URL; use sqlite:///FILE or postgresql://...") from None
    if url.drivername not in _DRIVERS:
        raise SettingsError("unsupported database URL; use SQLite, or PostgreSQL with psycopg")
    return url


@cache  # once per process: closing a file drops every lock that the process has on it
def is_sqlite(path: Path) -> bool:
    """Return whether a file is a SQLite database or empty: the mode of any other is not changed."""
    with path.open("rb") as file:
        return file.read(16) in (b"", b"SQLite format 3\0")
