"""Enrollments by their whole name or ID. Commands act on these, never on a match by prefix."""

import unicodedata
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select

from services.audit.query.enrollments import list_enrollments
from services.audit.query.filters import EnrollmentFilter
from services.audit.record.event_row import storable
from services.audit.store.spelling import folded, spellings
from services.audit.store.tables import enrollments, names
from shared.log.enrollment import State
from shared.x509.dn import read_dn

_NEAR: Final = 10


def find_exact(
    connection: Connection, text: str, limit: int, state: State | None = None
) -> list[dict[str, Any]]:
    """Return up to `limit` rows that `text` names exactly, newest first.

    It may be the enrollment's key, its transaction ID, its serial number, or the whole device name
    or CN.
    """
    if not text.strip():
        return []
    columns = enrollments.c
    entries = {storable(each) for each in (folded(text), *spellings(text))}
    indexed = select(names.c.enrollment).where(names.c.name.in_(entries))
    query = select(enrollments).where(
        columns.enrollment.in_(indexed) | (columns.enrollment == storable(text))
    )
    if state is not None:
        query = query.where(columns.state == state)
    # `+ 0` keeps PostgreSQL off the index by time, which it would scan for the few matches.
    query = query.order_by((columns.requested_at + 0).desc(), columns.enrollment.desc())
    # The index has every part of a name: another device's OU may equal this device's name.
    with connection.execution_options(yield_per=100).execute(query) as result:
        fitting = (dict(row) for row in result.mappings() if matches_exactly(row, text))
        return list(islice(fitting, limit))


def matches_exactly(row: RowMapping | dict[str, Any], text: str) -> bool:
    """Return whether `text` is the row's key, transaction ID, serial number, whole name or CN."""
    if storable(text) in (row["enrollment"], row["transaction_id"]):
        return True
    if row["serial"] and row["serial"] in spellings(text):
        return True
    device = row["device"] or ""
    common_names = (value for kind, value in read_dn(device) if kind == "CN")
    called = {_composed(name) for name in (device, *common_names) if name}
    return _composed(storable(text)) in called


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def suggest(connection: Connection, text: str, state: State | None = None) -> list[dict[str, Any]]:
    """Return a few rows with a name that starts with `text`, as suggestions; none if blank."""
    if not text.strip():
        return []
    states = (state,) if state is not None else ()
    page = list_enrollments(connection, EnrollmentFilter(None, states, search=text, limit=_NEAR))
    return list(page.rows)
