"""The database: engine, migrations on start, and batches of rows with their position."""

from collections.abc import Sequence
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from services.audit.tables import events, positions

_DRIVER: Final = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def open_engine(url: str) -> Engine:
    """An engine for SQLite (WAL) or PostgreSQL (psycopg)."""
    parsed = make_url(url)
    parsed = parsed.set(drivername=_DRIVER.get(parsed.drivername, parsed.drivername))
    engine = create_engine(parsed, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_sqlite_connect)
    return engine


def _on_sqlite_connect(connection: Any, _: Any) -> None:
    """Readers do not stop the writer; a commit survives a crash of the process."""
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def migrate(engine: Engine) -> None:
    """Bring the schema up to date, from any released version."""
    config = Config()
    config.set_main_option("script_location", "services.audit:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def position(engine: Engine, stream: str) -> int:
    """The last sequence of a stream that stands in the database, 0 before the first."""
    with engine.connect() as connection:
        return _position(connection, stream)


def _position(connection: Connection, stream: str) -> int:
    found = connection.execute(
        select(positions.c.sequence).where(positions.c.stream == stream)
    ).scalar()
    return int(found or 0)


def store(engine: Engine, stream: str, rows: Sequence[dict[str, Any]]) -> int:
    """Write rows and position in one transaction; how many were new.

    Rows at or before the position are there already: a redelivery adds nothing.
    """
    insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    with engine.begin() as connection:
        done = _position(connection, stream)
        new = [row for row in rows if row["sequence"] > done]
        if not new:
            return 0
        connection.execute(insert(events).on_conflict_do_nothing(), new)
        last = new[-1]["sequence"]
        upsert = insert(positions).values(stream=stream, sequence=last)
        connection.execute(
            upsert.on_conflict_do_update(index_elements=["stream"], set_={"sequence": last})
        )
    return len(new)
