"""Reading the audit service's database for a command."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cli.output import failed
from services.audit.settings import database_url
from services.audit.store.engine import Connection, DatabaseError, open_existing
from shared.config.load import SettingsError, load

_T = TypeVar("_T")


def with_database(config: Path, work: Callable[[Connection], _T]) -> _T:
    """Run a query; print one line and exit with status 1 if it fails."""
    try:
        with open_existing(database_url(load(config))).connect() as connection:
            return work(connection)
    except SettingsError as error:
        raise failed(error) from None
    except DatabaseError as error:
        raise failed(f"the database cannot be used: {type(error).__name__}") from None
