"""Devices with signed challenges that hit their enrollment limit, from the refusals of a day."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, func, select, union_all

from services.audit.query.filters import EnrollmentFilter, filtered
from shared.limits import REFUSALS_SEARCHED
from shared.log.enrollment import State
from shared.log.reasons import Reason

_ACTIONS: Final = ("scep_pkcsreq_intune", "scep_renewalreq_intune")
_DAY_NANOSECONDS: Final = 86_400_000_000_000
_COLUMNS: Final = (
    "profile",
    "claim_issuer",
    "claim_subject",
    "device_id",
    "device",
    "detail",
    "enrollment",
)


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Devices, those with most refusals first, from `since` (Unix nanoseconds) on.

    `is_complete` is False if there were too many refusals to look at all of them.
    """

    devices: list[dict[str, Any]]
    since: int
    is_complete: bool


def list_rate_limited(
    connection: Connection, now: int, limit: int, profile: str | None = None
) -> RateLimited:
    """Return the devices that were refused as `rate_limited` within 24 hours.

    `now` is in Unix seconds. A device is a subject (`sub`) of an issuer (`iss`) on a profile; its
    names, detail and enrollment are those of its last refusal.
    """
    since = max(now * 1_000_000_000 - _DAY_NANOSECONDS, 0)
    newest = [_refused(action, since, profile) for action in _ACTIONS]
    beyond = [
        connection.execute(each.offset(int(REFUSALS_SEARCHED)).limit(1)).first() for each in newest
    ]
    rows = connection.execute(_devices(newest, limit)).mappings()
    return RateLimited([dict(row) for row in rows], since, not any(beyond))


def _refused(action: str, since: int, profile: str | None) -> Select[Any]:
    """Return the query for the refusals of an action, newest first, which an index has in order."""
    return filtered(EnrollmentFilter(profile, (State.REJECTED,), (action,), since=since))


def _devices(newest: list[Select[Any]], limit: int) -> Select[Any]:
    """Return the query for the last refusal of each device, with the number of all."""
    parts = (each.limit(int(REFUSALS_SEARCHED)).subquery() for each in newest)
    found = union_all(
        *(
            select(*(part.c[name] for name in _COLUMNS), part.c.requested_at).where(
                part.c.reason == Reason.RATE_LIMITED
            )
            for part in parts
        )
    ).subquery()
    device = (found.c.profile, found.c.claim_issuer, found.c.claim_subject)
    order = (found.c.requested_at.desc(), found.c.enrollment.desc())
    ranked = select(
        *(found.c[name] for name in _COLUMNS),
        found.c.requested_at.label("last_at"),
        func.count().over(partition_by=device).label("refusals"),
        func.row_number().over(partition_by=device, order_by=order).label("place"),
    ).subquery()
    columns = ranked.c
    return (
        select(*(columns[name] for name in (*_COLUMNS, "last_at", "refusals")))
        .where(columns.place == 1)
        .order_by(columns.refusals.desc(), columns.last_at.desc(), columns.enrollment)
        .limit(limit)
    )
