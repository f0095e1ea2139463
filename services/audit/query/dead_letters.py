"""Queries for dead letters: whether each was retried and whether it needs action."""

from typing import Any, Final

from sqlalchemy import Connection, func, select

from services.audit.store.tables import dead_letters, enrollments, retries
from shared.log.enrollment import State
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.subjects import parse_subject

_MOST: Final = 500
_NOTIFICATIONS: Final = frozenset({Stage.VERDICT, Stage.OUTCOME})


def list_dead_letters(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Return dead letters, newest first.

    `retried` is the last attempt that one was retried as, or None. `open` says whether it needs
    action: it was not retried, and it is a revocation, or it belongs to an enrollment without a
    certificate in any attempt and is not a notification of the validator.
    """
    columns = dead_letters.c
    retried = (
        select(func.max(retries.c.attempt))
        .where(retries.c.stream == columns.stream, retries.c.sequence == columns.sequence)
        .scalar_subquery()
    )
    query = select(dead_letters, retried.label("retried"))
    query = query.order_by(columns.recorded_at.desc()).limit(limit)
    found = [dict(row) for row in connection.execute(query).mappings()]
    return [row | {"open": _is_open(connection, row)} for row in found]


def count_open(connection: Connection) -> int:
    """Count the dead letters that need action, among the newest 500."""
    return sum(row["open"] for row in list_dead_letters(connection, _MOST))


def _is_open(connection: Connection, row: dict[str, Any]) -> bool:
    if row["retried"] is not None:
        return False
    try:
        enrollment, stage = parse_subject(row["subject"])
    except ValueError:
        return bool(row["subject"].startswith(("ops.revoke.", "ops.withdraw.")))
    if row["role"] == Role.VALIDATOR and stage in _NOTIFICATIONS:
        return False
    # Any attempt counts: all of them share the key without its last part.
    every = enrollment.prefix().rpartition(".")[0]
    columns = enrollments.c
    issued = select(columns.enrollment).where(
        columns.enrollment > f"{every}.",
        columns.enrollment < f"{every}/",
        columns.state == State.ISSUED,
    )
    return connection.execute(issued.limit(1)).first() is None
