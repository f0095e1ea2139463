"""What stands in a database of the audit service, table by table."""

import hashlib

from sqlalchemy import select

from services.audit.store.engine import open_engine
from services.audit.store.tables import metadata


def tables(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row, sorted."""
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return found


def checksums(url: str) -> dict[str, str]:
    """A digest of each table's rows, and how many there are."""
    return {
        name: f"{len(rows)} {hashlib.sha256(repr(rows).encode()).hexdigest()}"
        for name, rows in tables(url).items()
    }
