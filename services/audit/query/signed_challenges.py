"""Counters of enrollments with challenges of Intune, by profile, result and hour."""

from typing import Final

from sqlalchemy import Connection, func, select

from services.audit.store.tables import counters

_KINDS: Final = ("signed", "intune")


def ends_since(
    connection: Connection, profile: str | None, since: int
) -> list[tuple[int, bool, int]]:
    """Return (start of the hour, success, count) for the hours that start after `since`.

    Times are Unix seconds. `profile` None counts all profiles.
    """
    columns = counters.c
    query = select(columns.hour, columns.result, columns["count"]).where(
        columns.challenge.in_(_KINDS), columns.hour > since
    )
    if profile is not None:
        query = query.where(columns.profile == profile)
    return [(hour, result == "success", n) for hour, result, n in connection.execute(query)]


def count_results(connection: Connection) -> dict[str, dict[str, int]]:
    """Return how often each result of a signed challenge occurred, by profile and result."""
    columns = counters.c
    query = (
        select(columns.profile, columns.result, func.sum(columns["count"]))
        .where(columns.challenge == "signed")
        .group_by(columns.profile, columns.result)
    )
    found: dict[str, dict[str, int]] = {}
    for profile, result, count in connection.execute(query):
        found.setdefault(profile, {})[result] = int(count)
    return found
