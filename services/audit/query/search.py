"""Search of enrollments by the beginning of a name, newest first, however many names match.

Theory of operation. The table `names` has a row for each name of an enrollment, with its time; an
index orders it by name. A page of results holds the newest matches, which no index has in order, so
the plan depends on how many names match:

* Up to 10 000: read all from the index and sort (`_by_names`; with filters `_filtered`).
* More: the newest enrollments probably contain matches, so check the newest 2 000 first, then the
  2 000 that end with the newest matching name (`_among_newest`).
* If these do not fill the page, sample one name in 61 to find a time after which there are about
  twice as many matching names as needed (`_threshold`), and sort only those. With filters, sort all
  matches (`_filtered`).

Figures are in docs/benchmarks.md; see docs/decisions/0020-searching-many-names.md.
"""

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, exists, func, select

from services.audit.query.filters import EnrollmentFilter, filtered, times
from services.audit.store.spelling import spellings
from services.audit.store.tables import enrollments, names

_LAST: Final = "\U0010ffff"
# With more matching names than this, a search starts at the newest enrollments.
_MANY: Final = 10_000
_LOOKED_AT: Final = 2_000
# Upper limit of names of one enrollment: those of its CSR and claim, its transaction, its serial.
_NAMES_EACH: Final = 24
# One name in about this many is sampled.
_SAMPLED: Final = 61

Begins = tuple[ColumnElement[bool], ...]


def search(connection: Connection, filter_: EnrollmentFilter, limit: int) -> list[dict[str, Any]]:
    """Return up to `limit` rows with a name that starts with `filter_.search`, newest first.

    `filter_` has at most one state and one action. An empty search matches nothing.
    """
    found = {
        row["enrollment"]: row
        for name in spellings(filter_.search or "")
        for row in _search(connection, filter_, name, limit)
    }
    newest = sorted(found.values(), key=lambda r: (r["requested_at"], r["enrollment"]))
    return newest[::-1][:limit]


def _search(
    connection: Connection, filter_: EnrollmentFilter, name: str, limit: int
) -> list[dict[str, Any]]:
    """Return the rows with a name that starts with one spelling of the search."""
    begins = (names.c.name >= name, names.c.name < name + _LAST)
    beyond = select(names.c.name).where(*begins).offset(_MANY).limit(1)
    many = connection.execute(beyond).first() is not None
    if many:
        found = _among_newest(connection, filter_, begins, limit)
        if len(found) == limit:
            return _rows(connection, found)
    if filter_.profile or filter_.states or filter_.actions:
        return _filtered(connection, filter_, begins, limit)
    since = _threshold(connection, filter_, begins, limit) if many else None
    found = _by_names(connection, filter_, begins, limit, since)
    if len(found) < limit and since is not None:  # the sample was not representative
        found = _by_names(connection, filter_, begins, limit, None)
    return _rows(connection, found)


def _among_newest(
    connection: Connection, filter_: EnrollmentFilter, begins: Begins, limit: int
) -> list[str]:
    """Return matches among the newest 2 000 enrollments, or the 2 000 up to the newest match.

    Fewer than `limit` does not mean that there are no more.
    """
    found = _among(connection, filter_, begins, limit)
    if len(found) < limit:
        newest = select(func.max(names.c.requested_at)).where(*begins, *times(names, filter_))
        if (time := connection.execute(newest).scalar()) is not None:
            found = _among(connection, replace(filter_, until=time + 1), begins, limit)
    return found


def _among(
    connection: Connection, filter_: EnrollmentFilter, begins: Begins, limit: int
) -> list[str]:
    """Return matches among the newest `_LOOKED_AT` enrollments that `filter_` allows."""
    columns = enrollments.c
    times_back = filtered(filter_).with_only_columns(columns.requested_at)
    oldest = times_back.offset(_LOOKED_AT).limit(1)
    fitting = exists().where(names.c.enrollment == columns.enrollment, *begins)
    query = filtered(filter_).with_only_columns(columns.enrollment).where(fitting)
    if (last := connection.execute(oldest).scalar()) is not None:
        query = query.where(columns.requested_at >= last)
    return list(connection.execute(query.limit(limit)).scalars())


def _threshold(
    connection: Connection, filter_: EnrollmentFilter, begins: Begins, limit: int
) -> int | None:
    """Return a time after which there are about twice as many matching names as needed.

    Sorting only those is faster than sorting all. None if the sample is too small.
    """
    columns, several = names.c, 2 * limit * _NAMES_EACH // _SAMPLED
    query = select(columns.requested_at).where(
        *begins, *times(names, filter_), columns.requested_at % _SAMPLED == 0
    )
    sample = sorted(connection.execute(query).scalars(), reverse=True)
    return sample[several] if len(sample) > several else None


def _by_names(
    connection: Connection, filter_: EnrollmentFilter, begins: Begins, limit: int, since: int | None
) -> list[str]:
    """Return the newest matches, no older than `since`, from the table of names alone.

    An enrollment appears once per matching name, so `limit * _NAMES_EACH` rows are enough.
    """
    columns = names.c
    query = select(columns.enrollment).where(*begins, *times(names, filter_))
    if since is not None:
        query = query.where(columns.requested_at >= since)
    # `+ 0` keeps PostgreSQL off the index by time, which it would scan for the few matches.
    query = query.order_by((columns.requested_at + 0).desc(), columns.enrollment.desc())
    found = connection.execute(query.limit(limit * _NAMES_EACH)).scalars()
    return list(dict.fromkeys(found))[:limit]


def _filtered(
    connection: Connection, filter_: EnrollmentFilter, begins: Begins, limit: int
) -> list[dict[str, Any]]:
    """Return the newest matches, each checked against the other filters."""
    columns = enrollments.c
    begun = select(names.c.enrollment).where(*begins)
    query = filtered(filter_).where(columns.enrollment.in_(begun)).order_by(None)
    query = query.order_by((columns.requested_at + 0).desc(), columns.enrollment.desc())
    return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]


def _rows(connection: Connection, found: list[str]) -> list[dict[str, Any]]:
    """Return the rows of these enrollments, in the same order."""
    query = select(enrollments).where(enrollments.c.enrollment.in_(found))
    rows = {row["enrollment"]: dict(row) for row in connection.execute(query).mappings()}
    return [rows[name] for name in found if name in rows]
