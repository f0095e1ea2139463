"""Connections to the database, schema migrations and write locks."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Engine,
    column,
    create_engine,
    event,
    func,
    inspect,
    select,
    table,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError as DatabaseError

from services.audit.store.urls import is_sqlite, read_url
from shared.config.load import SettingsError

__all__ = ["Connection", "DatabaseError", "Engine"]
SCHEMA: Final = "202611271800"  # the newest of migrations/versions
_VERSIONS: Final = table("alembic_version", column("version_num"))
_MIGRATIONS: Final = "migrations"
# A server that is gone, or a lock that is never released, ends in an error. A silent server looks
# the same as a slow one here: callers have deadlines of their own.
_POOL_SECONDS: Final = 5
_POSTGRESQL: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
_OPTIONS: Final = "-c statement_timeout=60s -c lock_timeout=30s"
_DRIVER: Final = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


class NoDatabaseError(SettingsError):
    """Raised if a command that reads finds no database; the message says where it looked."""


def open_existing(url: str) -> Engine:
    """Open the database for a command that reads.

    Raises `NoDatabaseError` for a missing SQLite file instead of creating it.
    """
    parsed = read_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise NoDatabaseError(
            f"no database at {parsed.database}; start the audit service to create it"
        )
    return open_engine(url)


def open_engine(url: str) -> Engine:
    """Open SQLite (WAL, a file for its owner alone) or PostgreSQL (psycopg).

    Raises `SettingsError` for the URL of any other database.
    """
    parsed = read_url(url)
    parsed = parsed.set(drivername=_DRIVER.get(parsed.drivername, parsed.drivername))
    # Errors must not quote searches, addresses or digests of tokens.
    options = _postgresql(parsed) if parsed.get_backend_name() == "postgresql" else {}
    engine = create_engine(parsed, pool_pre_ping=True, hide_parameters=True, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "do_connect", _on_sqlite_open)
        event.listen(engine, "connect", _on_sqlite_connect)
    return engine


def open_scratch(path: Path) -> Engine:
    """Open a new SQLite file that nobody needs after this process: nothing waits for the disk."""
    engine = open_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _on_scratch_connect)
    return engine


def _on_scratch_connect(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "cache_size=-65536"):
        connection.execute(f"PRAGMA {pragma}")


def _postgresql(url: URL) -> dict[str, Any]:
    """Return our limits, except those that the URL itself sets."""
    arguments = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    own = url.query.get("options", "")
    # Of two values the server takes the last: the URL's own.
    options = " ".join((_OPTIONS, *((own,) if isinstance(own, str) else own))).strip()
    return {"pool_timeout": _POOL_SECONDS, "connect_args": arguments | {"options": options}}


def _on_sqlite_open(_: Any, __: Any, arguments: Sequence[Any], ___: Any) -> None:
    """Make the file private before it has content; SQLite's other files get the same mode."""
    path = Path(str(arguments[0])) if arguments else Path(":memory:")
    if str(path) == ":memory:":
        return
    with contextlib.suppress(OSError):  # the driver reports it
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and is_sqlite(path):
            path.chmod(0o600)
        return
    with contextlib.suppress(OSError):
        # Only a missing file: closing an existing one drops every lock this process has on it, and
        # another process that closes the database would remove the WAL that we write to.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _on_sqlite_connect(connection: Any, _: Any) -> None:
    """Set pragmas: readers do not block the writer, and commits survive a crash of the process."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def migrate(engine: Engine) -> None:
    """Migrate the schema from any released version to the current one: all of it or nothing.

    Raises `SettingsError` if another version made it.
    """
    if _schema(engine) == SCHEMA:
        return
    # Importing Alembic takes longer than everything else that a start does with the database.
    from services.audit.store.upgrade import upgrade  # noqa: PLC0415

    upgrade(engine)


def _schema(engine: Engine) -> str | None:
    """Return the revision that Alembic has recorded, None if there is none."""
    if not inspect(engine).has_table(_VERSIONS.name):
        return None
    with engine.connect() as connection:
        return connection.execute(select(_VERSIONS.c.version_num)).scalar_one_or_none()


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Give all reads of a block the same state of the database, whatever is written meanwhile."""
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        yield connection


def lock_stream(connection: Connection, what: str) -> None:
    """Take the write lock of `what` (a stream, or all migrations) until the transaction ends.

    In PostgreSQL it is an advisory lock; recording also shares the lock that migrations take
    exclusively. SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        if what != _MIGRATIONS:
            shared = func.pg_advisory_xact_lock_shared(_lock_number(_MIGRATIONS))
            connection.execute(select(shared))
        connection.execute(select(func.pg_advisory_xact_lock(_lock_number(what))))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def lock_all(connection: Connection) -> None:
    """Keep all other writers out until this transaction, which rewrites whole tables, ends.

    Waits as long as it takes for transactions that record: PostgreSQL's time limits are lifted.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    lock_stream(connection, _MIGRATIONS)


def _lock_number(what: str) -> int:
    """Return a 63-bit lock number for a stream, or for all migrations."""
    return int.from_bytes(hashlib.sha256(f"scepstream {what}".encode()).digest()[:8]) >> 1
