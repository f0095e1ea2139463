"""Queries for certificates: lists by what became of them, with paging, and counts."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from services.audit.query.filters import decode_cursor, encode_cursor
from services.audit.query.life import RenewalWindows, View
from services.audit.query.pages import MAX_LIMIT, Page, fitting
from services.audit.store.tables import certificates
from shared.log.events.commands import RevocationReason

_DAY: Final = 86400
_C: Final = certificates.c
_HELD: Final = _C.revocation_reason == RevocationReason.CERTIFICATE_HOLD
_NOT_REVOKED: Final = func.coalesce(_C.revoked_at, 0) == 0
# What is not replaced, by the partial indexes of that condition.
_CURRENT: Final = _C.superseded_by.is_(None)
Place = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class CertificateFilter:
    """Filter of certificates.

    `profiles` match if they contain the value; None: all. `days` is for `View.EXPIRING`. `windows`
    and `now` (Unix seconds) say which certificates are late.
    """

    windows: RenewalWindows
    now: int
    view: View | None = None
    days: int = 30
    profiles: tuple[str, ...] | None = None
    issuer: str | None = None
    cursor: str | None = None
    limit: int = 50


def list_certificates(connection: Connection, filter_: CertificateFilter) -> Page:
    """Return a page of certificates, each with `not_renewed`: whether it should have been.

    Valid ones are in order of their end, the next one first. Otherwise those come first that
    expired, were superseded, revoked or, without a view, issued last. Raises `BadCursorError`.
    """
    limit = min(max(filter_.limit, 1), MAX_LIMIT)
    column, descending = _order(filter_.view)
    branches = [_rows(connection, each, limit + 1) for each in _branches(filter_)]

    def key(row: dict[str, Any]) -> Place:
        return row[column.name], row["issuer"], row["serial"]

    rows = list(islice(heapq.merge(*branches, key=key, reverse=descending), limit + 1))
    limit, next_cursor = fitting(rows, limit), None
    if len(rows) > limit:
        next_cursor = encode_cursor(*key(rows[limit - 1]))
    return Page(rows[:limit], next_cursor)


def find_certificate(
    connection: Connection, issuer: str, serial: str, windows: RenewalWindows, now: int
) -> dict[str, Any] | None:
    """Return the certificate with this issuer (its configured name) and serial number in hex."""
    query = _selected(windows, now).where(_C.issuer == issuer, _C.serial == serial)
    row = connection.execute(query).mappings().first()
    return _typed(row) if row is not None else None


def certificates_query(filter_: CertificateFilter) -> Select[Any]:
    """Return the query for a filter with at most one profile, in the order of its view."""
    column, descending = _order(filter_.view)
    place = (column, _C.issuer, _C.serial)
    query = _selected(filter_.windows, filter_.now).where(
        or_(_C.enrollment.is_not(None), _C.revoked_at.is_not(None)),  # else only named by another
        *_conditions(filter_),
    )
    if filter_.profiles is not None:
        query = query.where(_C.profile == next(iter(filter_.profiles)))
    if filter_.issuer is not None:
        # Not by the index of issuers: most systems have one, and all its rows would be sorted.
        query = query.where(_C.issuer.concat("") == filter_.issuer)
    if filter_.cursor is not None:
        after = tuple_(*decode_cursor(filter_.cursor, 3))
        query = query.where(tuple_(*place) < after if descending else tuple_(*place) > after)
    return query.order_by(*(each.desc() if descending else each.asc() for each in place))


def expiring_after(connection: Connection, after: Place, until: int, limit: int) -> list[Any]:
    """Return the certificates after a place (end, issuer, serial) that end by `until`, in order.

    Only those that count as in `View.EXPIRING`: not replaced, revoked or on hold.
    """
    place = (_C.not_after, _C.issuer, _C.serial)
    query = (
        select(certificates)
        .where(_CURRENT, _awaited(), tuple_(*place) > tuple_(*after), _C.not_after <= until)
        .order_by(*place)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def count_expiring(connection: Connection, now: int, days: Sequence[int]) -> dict[str, list[int]]:
    """Return by profile how many certificates end within each of these numbers of days."""
    ends = [_C.not_after <= now + each * _DAY for each in days]
    query = (
        select(_C.profile, *(func.sum(case((end, 1), else_=0)) for end in ends))
        .where(_CURRENT, _awaited(), _C.not_after >= now, _C.not_after <= now + max(days) * _DAY)
        .group_by(_C.profile)
    )
    return {profile or "": [int(n) for n in rest] for profile, *rest in connection.execute(query)}


def count_not_renewed(connection: Connection, windows: RenewalWindows, now: int) -> dict[str, int]:
    """Return by profile how many certificates should have been renewed."""
    query = (
        select(_C.profile, func.count()).where(_CURRENT, *_late(windows, now)).group_by(_C.profile)
    )
    return {profile or "": int(count) for profile, count in connection.execute(query)}


def _rows(connection: Connection, filter_: CertificateFilter, limit: int) -> list[dict[str, Any]]:
    query = certificates_query(filter_).limit(limit)
    return [_typed(row) for row in connection.execute(query).mappings()]


def _order(view: View | None) -> tuple[ColumnElement[Any], bool]:
    """Return the column that a view is ordered by, and whether the highest comes first."""
    match view:
        case None:
            return _C.recorded_at, True
        case View.VALID | View.EXPIRING | View.NOT_RENEWED:
            return _C.not_after, False
        case View.EXPIRED:
            return _C.not_after, True
        case View.SUPERSEDED:
            return _C.superseded_at, True
        case View.HELD | View.REVOKED:
            return _C.revoked_at, True


def _branches(filter_: CertificateFilter) -> Iterator[CertificateFilter]:
    """Split into one filter per profile: an index has each in order, but no union."""
    if filter_.profiles is None:
        yield filter_
    for profile in filter_.profiles or ():
        yield replace(filter_, profiles=(profile,))


def _conditions(filter_: CertificateFilter) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a view; they agree with `state_of` and `should_have_renewed`."""
    now = filter_.now
    alive, gone = _C.not_after >= now, _C.not_after < now
    match filter_.view:
        case View.VALID:
            yield from (_CURRENT, _NOT_REVOKED, alive)
        case View.EXPIRING:
            yield from (_CURRENT, _awaited(), alive, _C.not_after <= now + filter_.days * _DAY)
        case View.NOT_RENEWED:
            yield from (_CURRENT, *_late(filter_.windows, now))
        case View.EXPIRED:
            yield from (_CURRENT, gone, or_(_NOT_REVOKED, _HELD))
        case View.SUPERSEDED:
            yield _C.superseded_at.is_not(None)
            yield or_(_NOT_REVOKED, and_(_HELD, gone))
        case View.HELD:
            yield from (_C.revoked_at > 0, _HELD, alive)
        case View.REVOKED:
            yield from (_C.revoked_at > 0, ~_HELD)


def _awaited() -> ColumnElement[bool]:
    """Match a certificate that its device may still use: it has no later one.

    A device that enrolled again instead of renewing is known by its subject.
    """
    later = certificates.alias()
    enrolled_again = exists(
        select(literal(1)).where(
            later.c.profile == _C.profile,
            later.c.subject == _C.subject,
            later.c.recorded_at > _C.recorded_at,
            func.coalesce(later.c.revoked_at, 0) == 0,
        )
    )
    return and_(_NOT_REVOKED, or_(func.coalesce(_C.subject, "") == "", ~enrolled_again))


def _late(windows: RenewalWindows, now: int) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for certificates that should have been renewed."""
    yield _C.not_after >= now
    yield _C.not_after <= now + windows.reach
    yield _late_from(windows) <= now
    yield _awaited()


def _late_from(windows: RenewalWindows) -> ColumnElement[int]:
    """Return `renewal_late_from` of a row, by the window of its profile."""
    by_window: dict[int, list[str]] = {}
    for profile, window in windows.windows.items():
        by_window.setdefault(window, []).append(profile)
    default = _half_of(None)
    if not by_window:
        return default
    return case(
        *((_C.profile.in_(names), _half_of(window)) for window, names in by_window.items()),
        else_=default,
    )


def _half_of(window: int | None) -> ColumnElement[int]:
    begin: ColumnElement[int] = _C.not_before
    if window is None:
        begin = _C.not_after - (_C.not_after - _C.not_before) // 3
    elif window:
        opens = _C.not_after - window
        begin = case((opens > _C.not_before, opens), else_=_C.not_before)
    return _C.not_after - (_C.not_after - begin) // 2


def _selected(windows: RenewalWindows, now: int) -> Select[Any]:
    late = and_(_CURRENT, *_late(windows, now))
    return select(certificates, case((late, 1), else_=0).label("not_renewed"))


def _typed(row: RowMapping) -> dict[str, Any]:
    return {**row, "not_renewed": bool(row["not_renewed"])}
