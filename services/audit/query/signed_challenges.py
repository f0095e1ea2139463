"""How enrollments with signed challenges ended, by profile and hour."""

from sqlalchemy import Connection, func, select

from services.audit.store.tables import counters


def ends_since(
    connection: Connection, profile: str | None, since: int
) -> list[tuple[int, bool, int]]:
    """(Unix s of the hour, whether with success, how many) of each hour after `since`."""
    columns = counters.c
    query = select(columns.hour, columns.result, columns["count"]).where(
        columns.challenge == "signed", columns.hour > since
    )
    if profile is not None:
        query = query.where(columns.profile == profile)
    return [(hour, result == "success", n) for hour, result, n in connection.execute(query)]


def count_results(connection: Connection) -> dict[str, dict[str, int]]:
    """Profile to result to how often, of signed challenges."""
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
