"""Dead letters as people see them: with what became of each."""

from typing import Any

from sqlalchemy import Connection, func, select

from services.audit.tables import dead_letters, redrives


def list_letters(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """The newest first; `redriven` is the last attempt that one was driven again as, or None."""
    columns = dead_letters.c
    driven = (
        select(func.max(redrives.c.attempt))
        .where(redrives.c.stream == columns.stream, redrives.c.sequence == columns.sequence)
        .scalar_subquery()
    )
    query = select(dead_letters, driven.label("redriven"))
    query = query.order_by(columns.recorded_at.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def count_letters(connection: Connection) -> int:
    """How many nobody has driven again."""
    columns = dead_letters.c
    driven = select(redrives.c.attempt).where(
        redrives.c.stream == columns.stream, redrives.c.sequence == columns.sequence
    )
    query = select(func.count()).select_from(dead_letters).where(~driven.exists())
    return int(connection.execute(query).scalar_one())
