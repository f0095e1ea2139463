"""The history of an enrollment: its row, its certificate, and the events of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, or_, select

from services.audit.store.tables import certificates, enrollments, events

_ATTEMPTS: Final = 20  # a device that keeps failing adds one every hour


@dataclass(frozen=True, slots=True)
class History:
    """The history of an enrollment. Rows are by column name, events in order of the log's time."""

    enrollment: dict[str, Any]
    certificate: dict[str, Any] | None
    events: Sequence[dict[str, Any]]  # their payloads: see query.messages
    attempts: Sequence[str]  # enrollment keys, the newest last


def history_of(connection: Connection, enrollment: str) -> History | None:
    """Return the history of an enrollment, or None if it does not exist."""
    query = select(enrollments).where(enrollments.c.enrollment == enrollment)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    place = (events.c.recorded_at, events.c.stream, events.c.sequence)
    rows = connection.execute(select(events).where(_about(row)).order_by(*place)).mappings()
    return History(
        enrollment=dict(row),
        certificate=_certificate(connection, row),
        events=[dict(each) for each in rows],
        attempts=_attempts(connection, enrollment),
    )


def _about(row: RowMapping) -> ColumnElement[bool]:
    """Match its own events, and other streams' events of its certificate: recorded, revoked."""
    own: ColumnElement[bool] = events.c.enrollment == row["enrollment"]
    if not row["serial"]:
        return own
    of_its_serial = and_(
        events.c.serial == row["serial"],
        events.c.enrollment.is_(None),
        or_(
            events.c.subject.startswith(f"cert.{row['issuer']}.", autoescape=True),
            events.c.subject.startswith(f"ops.revoke.{row['issuer']}.", autoescape=True),
            events.c.subject.startswith(f"ops.withdraw.{row['issuer']}.", autoescape=True),
            events.c.subject.startswith("key."),
        ),
    )
    return or_(own, of_its_serial)


def _attempts(connection: Connection, enrollment: str) -> list[str]:
    """Return the newest attempts of the same enrollment, oldest first. Their keys are adjacent."""
    every = enrollment.rpartition(".")[0]
    columns = enrollments.c
    query = select(columns.enrollment).where(
        columns.enrollment > f"{every}.", columns.enrollment < f"{every}/"
    )
    newest = connection.execute(query.order_by(columns.requested_at.desc()).limit(_ATTEMPTS))
    return list(newest.scalars())[::-1]


def _certificate(connection: Connection, row: RowMapping) -> dict[str, Any] | None:
    columns = certificates.c
    query = select(certificates).where(
        columns.issuer == row["issuer"], columns.serial == row["serial"]
    )
    found = connection.execute(query).mappings().first()
    return dict(found) if found is not None else None
