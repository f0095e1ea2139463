"""Queries for certificates, newest first, with paging."""

from typing import Any

from sqlalchemy import Connection, select, tuple_

from services.audit.query.filters import EnrollmentFilter, cursor_of, place_of
from services.audit.query.pages import MAX_LIMIT, Page, fitting
from services.audit.store.tables import certificates


def list_certificates(connection: Connection, wanted: EnrollmentFilter) -> Page:
    """Return a page of certificates, newest first.

    Only `profile`, `cursor` and `limit` of the filter are used. Raises `BadCursorError`.
    """
    columns, limit = certificates.c, min(max(wanted.limit, 1), MAX_LIMIT)
    query = select(certificates).order_by(
        columns.recorded_at.desc(), columns.issuer.desc(), columns.serial.desc()
    )
    if wanted.profile is not None:
        query = query.where(columns.profile == wanted.profile)
    if wanted.cursor is not None:
        place = tuple_(columns.recorded_at, columns.issuer, columns.serial)
        query = query.where(place < tuple_(*place_of(wanted.cursor, 3)))
    rows = [dict(row) for row in connection.execute(query.limit(limit + 1)).mappings()]
    limit, following = fitting(rows, limit), None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = cursor_of(last["recorded_at"], last["issuer"], last["serial"])
    return Page(rows[:limit], following)


def find_certificate(connection: Connection, issuer: str, serial: str) -> dict[str, Any] | None:
    """Return the certificate with this issuer (its configured name) and serial number in hex."""
    columns = certificates.c
    query = select(certificates).where(columns.issuer == issuer, columns.serial == serial)
    row = connection.execute(query).mappings().first()
    return dict(row) if row is not None else None
