"""What is asked of the read model: recent enrollments, and the story of one."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, RowMapping, Select, and_, exists, func, or_, select

from services.audit.tables import events
from shared.enrollment import State

_STATES = {
    "EnrollmentRequested": State.REQUESTED,
    "EnrollmentHeld": State.HELD,
    "HoldDecided": State.DECIDED,
    "EnrollmentApproved": State.APPROVED,
    "EnrollmentRejected": State.REJECTED,
    "CertificateIssued": State.ISSUED,
    "IssuanceFailed": State.FAILED,
}


@dataclass(frozen=True, slots=True)
class EnrollmentLine:
    """One enrollment in a list; times are Unix nanoseconds of the log."""

    enrollment: str
    profile: str
    transaction_id: str
    device: str
    state: str
    result: str
    serial: str
    requested_at: int


def recent(
    engine: Engine,
    limit: int,
    profile: str | None = None,
    search: str | None = None,
    state: State | None = None,
) -> list[EnrollmentLine]:
    """The newest enrollments first; `search` is part of a device, or a transaction or serial."""
    newest = (
        select(events.c.enrollment, func.min(events.c.recorded_at).label("requested_at"))
        .where(events.c.enrollment.is_not(None))
        .group_by(events.c.enrollment)
        .order_by(func.min(events.c.recorded_at).desc())
        .limit(limit)
    )
    if profile is not None:
        newest = newest.where(events.c.profile == profile)
    if search:
        newest = newest.where(events.c.enrollment.in_(_matching(search)))
    if state is not None:
        newest = newest.where(events.c.enrollment.in_(_in_state(state)))
    with engine.connect() as connection:
        order = {r.enrollment: i for i, r in enumerate(connection.execute(newest))}
        rows = connection.execute(
            select(events)
            .where(events.c.enrollment.in_(order))
            .order_by(events.c.recorded_at, events.c.sequence)
        ).mappings()
        stories: dict[str, list[RowMapping]] = {name: [] for name in order}
        for row in rows:
            stories[row["enrollment"]].append(row)
    return [_line(story) for story in stories.values()]


def _matching(search: str) -> Select[tuple[str | None]]:
    return select(events.c.enrollment).where(
        or_(
            events.c.transaction_id == search,
            events.c.serial == search.lower(),
            events.c.enrollment == search,
            func.lower(events.c.device).contains(search.lower(), autoescape=True),
        )
    )


def _in_state(state: State) -> Select[tuple[str | None]]:
    """Those whose newest event is one that leads to this state."""
    kinds = [kind for kind, found in _STATES.items() if found is state]
    later = events.alias()
    after = select(later.c.sequence).where(
        later.c.enrollment == events.c.enrollment, later.c.sequence > events.c.sequence
    )
    return select(events.c.enrollment).where(events.c.type.in_(kinds), ~exists(after))


def _line(story: Sequence[RowMapping]) -> EnrollmentLine:
    def told(column: str) -> str:
        return next((row[column] for row in reversed(story) if row[column]), "")

    return EnrollmentLine(
        enrollment=story[0]["enrollment"],
        profile=story[0]["profile"],
        transaction_id=told("transaction_id"),
        device=told("device"),
        state=_STATES.get(story[-1]["type"], State.REQUESTED),
        result=told("result"),
        serial=told("serial"),
        requested_at=story[0]["recorded_at"],
    )


def story(engine: Engine, wanted: str) -> list[RowMapping]:
    """Every event of the newest enrollment that `wanted` (as `search` above) names."""
    found = recent(engine, 1, search=wanted) if wanted else []
    if not found:
        return []
    about_it = events.c.enrollment == found[0].enrollment
    if found[0].serial:
        # What became of the certificate stands in other streams: recorded, revoked.
        of_its_serial = and_(events.c.serial == found[0].serial, events.c.enrollment.is_(None))
        about_it = or_(about_it, of_its_serial)
    with engine.connect() as connection:
        query = select(events).where(about_it)
        return list(
            connection.execute(
                query.order_by(events.c.recorded_at, events.c.stream, events.c.sequence)
            ).mappings()
        )
