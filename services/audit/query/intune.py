"""Figures of the profiles whose challenges Intune validates."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, func, select

from services.audit.query.enrollments import count_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.store.tables import counters
from shared.log.enrollment import State

_KIND: Final = "intune"
_HOUR: Final = 3600
_HOURS: Final = 24


def count_waiting(connection: Connection, profiles: Iterable[str]) -> dict[str, int]:
    """Return how many certificates of each profile are withheld until Intune accepts them."""
    return {
        name: count_enrollments(connection, EnrollmentFilter(name, states=(State.CONFIRMING,)))
        for name in profiles
    }


def results_of_a_day(connection: Connection, now: float) -> dict[str, dict[str, int]]:
    """Return how often each result occurred in the last 24 hours, by profile and result.

    The hours are whole ones: the last is the one that has begun.
    """
    columns, since = counters.c, (int(now) // _HOUR - _HOURS + 1) * _HOUR
    query = (
        select(columns.profile, columns.result, func.sum(columns["count"]))
        .where(columns.challenge == _KIND, columns.hour >= since)
        .group_by(columns.profile, columns.result)
    )
    found: dict[str, dict[str, int]] = {}
    for profile, result, count in connection.execute(query):
        found.setdefault(profile, {})[result] = int(count)
    return found
