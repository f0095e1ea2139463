"""Both databases: SQLite in a file, and a real PostgreSQL out of a Python wheel."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from services.audit.store.engine import migrate, open_engine
from tests.support.postgres import emptied, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server of this process's own."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """The same, emptied."""
    return emptied(postgres)


# One process alone starts a server: several at once on one machine get in each other's way.
POSTGRESQL = pytest.param(
    "postgresql", marks=[pytest.mark.xdist_group("postgresql"), pytest.mark.slow]
)


@pytest.fixture(params=["sqlite", POSTGRESQL])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database without a schema."""
    if request.param == "sqlite":
        engine = open_engine(f"sqlite:///{tmp_path}/audit.db")
    else:
        engine = open_engine(request.getfixturevalue("postgres_url"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with today's schema: copying it takes a hundredth of migrating."""
    path = tmp_path_factory.mktemp("migrated") / "audit.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    engine.dispose()
    return path


@pytest.fixture
def engine(empty: Engine, migrated: Path) -> Engine:
    """A database with today's schema."""
    if empty.dialect.name == "sqlite":
        shutil.copyfile(migrated, str(empty.url.database))
    else:
        migrate(empty)
    return empty
