"""What the page reads from the database beside the lists of the API."""

from typing import Any, Final

from sqlalchemy import Connection, select

from services.audit.filters import Wanted
from services.audit.listing import list_enrollments
from services.audit.page.chart import RANGES, Chart, draw
from services.audit.page.words import CHIPS
from services.audit.store.tables import counters
from shared.enrollment import State

_FAILURES: Final = 50


def failures(connection: Connection, profile: str | None) -> list[dict[str, Any]]:
    """The last that a signed challenge did not help."""
    wanted = Wanted(
        profile=profile,
        states=(State.REJECTED, State.FAILED),
        actions=CHIPS["intune"],
        limit=_FAILURES,
    )
    return list(list_enrollments(connection, wanted).rows)


def chart(connection: Connection, profile: str | None, reach: str, now: float) -> Chart:
    """Ends of enrollments with signed challenges over time."""
    columns, (length, count) = counters.c, RANGES[reach]
    query = select(columns.hour, columns.result, columns["count"]).where(
        columns.challenge == "signed", columns.hour > int(now) - length * (count + 1)
    )
    if profile is not None:
        query = query.where(columns.profile == profile)
    found = [(hour, result == "success", n) for hour, result, n in connection.execute(query)]
    return draw(found, reach, now)
