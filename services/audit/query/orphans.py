"""Queries for possible orphans: orders whose answer was lost, and what became of them."""

import json
from typing import Any

from sqlalchemy import Connection, func, select

from services.audit.store.tables import enrollments, orphans


def list_orphans(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Return possible orphans, open ones first, then newest first, each with its device."""
    columns = orphans.c
    query = (
        select(orphans, enrollments.c.device, enrollments.c.profile)
        .join(enrollments, enrollments.c.enrollment == columns.enrollment, isouter=True)
        .order_by((columns.settled_at != 0), columns.suspected_at.desc(), columns.key)
        .limit(limit)
    )
    found = connection.execute(query).mappings()
    return [
        {
            **row,
            "open": not row["settled_at"],
            "settled_at": row["settled_at"] or None,
            "serials": json.loads(row["serials"] or "[]"),
        }
        for row in found
    ]


def count_open_orphans(connection: Connection) -> int:
    """Count the possible orphans that are not settled."""
    query = select(func.count()).select_from(orphans).where(orphans.c.settled_at == 0)
    return int(connection.execute(query).scalar_one())
