"""The database: engine, migrations on start, and batches of rows with their position."""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    Engine,
    Insert,
    RowMapping,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.engine import URL

from services.audit.checkpoint import advance
from services.audit.database_urls import is_sqlite, read_url
from services.audit.merge import insert_into, known, merge
from services.audit.model import enrollment_of, fold
from services.audit.positions import Place, move, place_of
from services.audit.projection import Found, row
from services.audit.tables import events
from shared.settings import SettingsError
from shared.stored import Stored

_CATCH_UP: Final = 1000
_MIGRATIONS: Final = "migrations"
# A server that is gone, or that holds a lock for good, ends in an error. One that is only silent
# cannot be told from a slow one here: who asks it waits no longer than they want to.
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
    """Raised where a command that reads finds no database; the message says where it looked."""


class EmptiedError(Exception):
    """Raised where the database stands before the position that its writer goes on from."""


def open_existing(url: str) -> Engine:
    """The same for commands that read: a SQLite file that is not there is not made."""
    parsed = read_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        raise NoDatabaseError(
            f"there is no database at {parsed.database}: the audit service makes it when it starts"
        )
    return open_engine(url)


def open_engine(url: str) -> Engine:
    """An engine for SQLite (WAL, a file for its owner alone) or PostgreSQL (psycopg).

    `SettingsError` for the URL of any other database.
    """
    parsed = read_url(url)
    parsed = parsed.set(drivername=_DRIVER.get(parsed.drivername, parsed.drivername))
    # An error's text is no place for a search, an address or a token's digest.
    options = _postgresql(parsed) if parsed.get_backend_name() == "postgresql" else {}
    engine = create_engine(parsed, pool_pre_ping=True, hide_parameters=True, **options)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "do_connect", _on_sqlite_open)
        event.listen(engine, "connect", _on_sqlite_connect)
    return engine


def _postgresql(url: URL) -> dict[str, Any]:
    """Return our limits, except those that the URL itself sets."""
    arguments = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    own = url.query.get("options", "")
    # The server takes the last of two values.
    options = " ".join((_OPTIONS, *((own,) if isinstance(own, str) else own))).strip()
    return {"pool_timeout": _POOL_SECONDS, "connect_args": arguments | {"options": options}}


def _on_sqlite_open(_: Any, __: Any, arguments: Sequence[Any], ___: Any) -> None:
    """Keep the file from others before there is anything in it; SQLite's own files follow it."""
    path = Path(str(arguments[0])) if arguments else Path(":memory:")
    if str(path) == ":memory:":
        return
    with contextlib.suppress(OSError):  # the driver says what is wrong
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and is_sqlite(path):
            path.chmod(0o600)
        return
    with contextlib.suppress(OSError):
        # Only a file that is not there: to close one drops every lock this process has on it, and
        # another process that closes the database would remove the log that we write to.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _on_sqlite_connect(connection: Any, _: Any) -> None:
    """Readers do not stop the writer; a commit survives a crash of the process."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def migrate(engine: Engine) -> None:
    """Bring the schema up to date, from any released version: all of it or nothing.

    Replicas that start together wait in line, and for what is being recorded. SQLite's driver
    begins no transaction for DDL by itself: half a schema would be in the way of every later start.
    """
    config = Config()
    config.set_main_option("script_location", "services.audit:migrations")
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
    with engine.begin() as connection:
        lock_all(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def position(engine: Engine, stream: str) -> int:
    """The last sequence of a stream that stands in the database, 0 before the first."""
    with engine.connect() as connection:
        return place_of(connection, stream).sequence


def position_of(connection: Connection, stream: str) -> int:
    """The same, as a snapshot has it."""
    return place_of(connection, stream).sequence


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """One state of the database for all reads of a block, whatever is written meanwhile."""
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        yield connection


def signed_place(engine: Engine, stream: str) -> tuple[int, str]:
    """(sequence, digest) of what a checkpoint of the stream would say."""
    with engine.connect() as connection:
        place = place_of(connection, stream)
    return place.projected, place.digest


@cache
def _recording(dialect: str) -> Insert:
    return insert_into(dialect, events).on_conflict_do_nothing()


def everything(_: Found) -> bool:
    """All of a stream."""
    return True


def store(
    engine: Engine,
    stream: str,
    messages: Sequence[Stored],
    wanted: Callable[[Found], bool] = everything,
    *,
    after: int = 0,
) -> int:
    """Write events, what follows from them, and the position in one transaction; how many are new.

    What is at or before the position is there already: a redelivery adds nothing. Writers of a
    stream wait for each other, so that none counts what another has. What is not `wanted` is
    passed over.

    `messages` are all that the log has from behind the position `after` to the last of them. Where
    the database stands before `after`, because `audit reconcile` emptied it or a backup was put
    back, storing them would leave a hole that no later look finds: `EmptiedError`.
    """
    with engine.begin() as connection:
        _wait_in_line(connection, stream)
        place = place_of(connection, stream)
        if place.sequence < after:
            raise EmptiedError(f"{stream}: at {place.sequence}, expected {after}")
        new = [message for message in messages if message.sequence > place.sequence]
        if not new:
            return 0
        read = [found for message in new if wanted(found := Found.of(message))]
        rows = [row(stream, found) for found in read]
        if rows:
            connection.execute(_recording(connection.dialect.name), rows)
        caught_up = place.projected == place.sequence
        place = replace(place, sequence=new[-1].sequence)
        if caught_up:
            place = replace(_projected(connection, read, place), projected=place.sequence)
        move(connection, stream, place)
    return len(new)


def catch_up(engine: Engine, stream: str) -> None:
    """Bring the model to where the events are: after a migration that made it anew."""
    while True:
        with engine.begin() as connection:
            _wait_in_line(connection, stream)
            place = place_of(connection, stream)
            messages = _events_after(connection, stream, place.projected)
            if not messages:
                return
            read = [Found.of(message) for message in messages]
            place = replace(_projected(connection, read, place), projected=messages[-1].sequence)
            move(connection, stream, place)


def _projected(connection: Connection, read: Sequence[Found], place: Place) -> Place:
    """Bring these events into the model; where it stands then."""
    about = {name for found in read if (name := enrollment_of(found.stored)) is not None}
    merge(connection, fold(read, known(connection, about)))
    digest = place.digest
    for found in read:
        digest = advance(digest, found.stored, found.headers)
    return replace(place, digest=digest)


def events_after(engine: Engine, stream: str, sequence: int) -> list[Stored]:
    """The first recorded events of a stream after this sequence, some at a time."""
    with engine.connect() as connection:
        return _events_after(connection, stream, sequence)


def _events_after(connection: Connection, stream: str, sequence: int) -> list[Stored]:
    columns = events.c
    query = (
        select(events)
        .where(columns.stream == stream, columns.sequence > sequence)
        .order_by(columns.sequence)
        .limit(_CATCH_UP)
    )
    return [stored_of(found) for found in connection.execute(query).mappings()]


def stored_of(found: RowMapping) -> Stored:
    """The event as the log holds it, out of its row."""
    return Stored(
        found["subject"],
        found["payload"],
        json.loads(found["headers"]),
        found["sequence"],
        found["recorded_at"],
    )


def _wait_in_line(connection: Connection, what: str) -> None:
    """SQLite has one writer anyway; in PostgreSQL locks for as long as the transaction.

    What is recorded shares a lock that migrations want for themselves.
    """
    if connection.dialect.name == "postgresql":
        if what != _MIGRATIONS:
            shared = func.pg_advisory_xact_lock_shared(_lock_number(_MIGRATIONS))
            connection.execute(select(shared))
        connection.execute(select(func.pg_advisory_xact_lock(_lock_number(what))))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def lock_all(connection: Connection) -> None:
    """Keep every other writer out until this transaction ends, which rewrites whole tables.

    Waits for what is being recorded, for as long as it takes: PostgreSQL's limits are lifted.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    _wait_in_line(connection, _MIGRATIONS)


def _lock_number(what: str) -> int:
    """A 63-bit number for a stream, or for all migrations."""
    return int.from_bytes(hashlib.sha256(f"scepstream {what}".encode()).digest()[:8]) >> 1
