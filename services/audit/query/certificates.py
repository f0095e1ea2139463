"""Queries for certificates, newest first, with paging."""

from typing import Any

from sqlalchemy import Connection, select, tuple_

from services.audit.query.filters import EnrollmentFilter, decode_cursor, encode_cursor
from services.audit.query.pages import MAX_LIMIT, Page, fitting
from services.audit.store.tables import certificates


def list_certificates(connection: Connection, filter_: EnrollmentFilter) -> Page:
    """Return a page of certificates, newest first.

    Only `profile`, `cursor` and `limit` of the filter are used. Raises `BadCursorError`.
    """
    columns, limit = certificates.c, min(max(filter_.limit, 1), MAX_LIMIT)
    query = select(certificates).order_by(
        columns.recorded_at.desc(), columns.issuer.desc(), columns.serial.desc()
    )
    if filter_.profile is not None:
        query = query.where(columns.profile == filter_.profile)
    if filter_.cursor is not None:
        place = tuple_(columns.recorded_at, columns.issuer, columns.serial)
        query = query.where(place < tuple_(*decode_cursor(filter_.cursor, 3)))
    rows = [dict(row) for row in connection.execute(query.limit(limit + 1)).mappings()]
    limit, next_cursor = fitting(rows, limit), None
    if len(rows) > limit:
        last = rows[limit - 1]
        next_cursor = encode_cursor(last["recorded_at"], last["issuer"], last["serial"])
    return Page(rows[:limit], next_cursor)


def find_certificate(connection: Connection, issuer: str, serial: str) -> dict[str, Any] | None:
    """Return the certificate with this issuer (its configured name) and serial number in hex."""
    columns = certificates.c
    query = select(certificates).where(columns.issuer == issuer, columns.serial == serial)
    row = connection.execute(query).mappings().first()
    return dict(row) if row is not None else None
