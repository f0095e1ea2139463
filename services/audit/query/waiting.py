"""Queries of the sweeper: attempts that wait for a service, and the newest requests."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select, tuple_

from services.audit.store.tables import commands, enrollments
from shared.log.enrollment import State

_SINCE: Final[Mapping[State, ColumnElement[Any]]] = {
    State.REQUESTED: enrollments.c.requested_at,
    State.DECIDED: enrollments.c.decided_at,
    State.APPROVED: enrollments.c.verdict_at,
    State.CONFIRMING: enrollments.c.verdict_at,
}
Place = tuple[int, str]


def list_waiting(
    connection: Connection, state: State, before: int, after: Place | None, limit: int
) -> list[tuple[int, str, int]]:
    """Return (requested at, enrollment, waiting since) of attempts in a state, oldest first.

    Only attempts requested at or before `before`, and after the place where the previous list
    ended. Times are Unix nanoseconds.
    """
    columns = enrollments.c
    query = (
        select(columns.requested_at, columns.enrollment, _SINCE[state])
        .where(columns.state == state, columns.requested_at <= before)
        .order_by(columns.requested_at, columns.enrollment)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(columns.requested_at, columns.enrollment) > tuple_(*after))
    return [
        (requested_at, enrollment, since or requested_at)
        for requested_at, enrollment, since in connection.execute(query)
    ]


def newest_requests(
    connection: Connection, profile: str, state: State, limit: int
) -> list[tuple[int, str]]:
    """Return (requested at in Unix ns, enrollment) of a profile's newest attempts in a state."""
    columns = enrollments.c
    query = (
        select(columns.requested_at, columns.enrollment)
        .where(columns.profile == profile, columns.state == state)
        .order_by(columns.requested_at.desc(), columns.enrollment.desc())
        .limit(limit)
    )
    return [(requested_at, enrollment) for requested_at, enrollment in connection.execute(query)]


def ordered_at(connection: Connection, subjects: Collection[str]) -> dict[str, int]:
    """Return when the command on each of these subjects was recorded (Unix ns)."""
    query = select(commands.c.subject, commands.c.ordered_at).where(
        commands.c.subject.in_(subjects)
    )
    found = connection.execute(query) if subjects else ()
    return {subject: at or 0 for subject, at in found}
