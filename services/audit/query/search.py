"""Enrollments by a name or its beginning, newest first, however many names begin so.

Theory of operation. The table `names` has a row for each name of an enrollment, with its time; an
index orders it by name. A page of results is the newest of those that match, which no index has in
order, so the plan depends on how many match:

* Up to 10 000 names: read them all from the index and sort (`_by_names`; with filters `_filtered`).
* More: a match is probably among the newest enrollments, so the newest 2 000 are looked at first,
  then 2 000 from the newest matching name on back (`_among_newest`).
* Where that is not enough, one name in 61 is sampled to find a time that about twice as many names
  are newer than are needed (`_threshold`), and only those are sorted.

Figures are in docs/benchmarks.md; see docs/decisions/0020-searching-many-names.md.
"""

from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, exists, func, select

from services.audit.query.filters import EnrollmentFilter, filtered, times
from services.audit.store.spelling import spellings
from services.audit.store.tables import enrollments, names

_LAST: Final = "\U0010ffff"
# Of more names than this some are likely near the newest: that is where a search begins.
_MANY: Final = 10_000
_LOOKED_AT: Final = 2_000
# No enrollment has more names: those of its CSR and claim, its transaction, its serial.
_NAMES_EACH: Final = 24
# About one name in so many tells where the newest of many begin.
_SAMPLED: Final = 61

Begins = tuple[ColumnElement[bool], ...]


def search(connection: Connection, wanted: EnrollmentFilter, limit: int) -> list[dict[str, Any]]:
    """Rows of one state and action at most, newest first, whose names begin so; with "" none do."""
    found = {
        row["enrollment"]: row
        for name in spellings(wanted.search or "")
        for row in _search(connection, wanted, name, limit)
    }
    newest = sorted(found.values(), key=lambda r: (r["requested_at"], r["enrollment"]))
    return newest[::-1][:limit]


def _search(
    connection: Connection, wanted: EnrollmentFilter, name: str, limit: int
) -> list[dict[str, Any]]:
    """Those with a name that begins as this spelling does."""
    begins = (names.c.name >= name, names.c.name < name + _LAST)
    beyond = select(names.c.name).where(*begins).offset(_MANY).limit(1)
    many = connection.execute(beyond).first() is not None
    if many:
        found = _among_newest(connection, wanted, begins, limit)
        if len(found) == limit:
            return _rows(connection, found)
    if wanted.profile or wanted.states or wanted.actions:
        return _filtered(connection, wanted, begins, limit)
    since = _threshold(connection, wanted, begins, limit) if many else None
    found = _by_names(connection, wanted, begins, limit, since)
    if len(found) < limit and since is not None:  # the sample was not like the rest
        found = _by_names(connection, wanted, begins, limit, None)
    return _rows(connection, found)


def _among_newest(
    connection: Connection, wanted: EnrollmentFilter, begins: Begins, limit: int
) -> list[str]:
    """Those among the newest 2 000 enrollments, or among 2 000 from the newest such name on back.

    As many as wanted, or too few to be all there are.
    """
    found = _among(connection, wanted, begins, limit)
    if len(found) < limit:
        newest = select(func.max(names.c.requested_at)).where(*begins, *times(names, wanted))
        if (time := connection.execute(newest).scalar()) is not None:
            found = _among(connection, replace(wanted, until=time + 1), begins, limit)
    return found


def _among(
    connection: Connection, wanted: EnrollmentFilter, begins: Begins, limit: int
) -> list[str]:
    """Those of so many enrollments, from the newest wanted on back."""
    columns = enrollments.c
    times_back = filtered(wanted).with_only_columns(columns.requested_at)
    oldest = times_back.offset(_LOOKED_AT).limit(1)
    fitting = exists().where(names.c.enrollment == columns.enrollment, *begins)
    query = filtered(wanted).with_only_columns(columns.enrollment).where(fitting)
    if (last := connection.execute(oldest).scalar()) is not None:
        query = query.where(columns.requested_at >= last)
    return list(connection.execute(query.limit(limit)).scalars())


def _threshold(
    connection: Connection, wanted: EnrollmentFilter, begins: Begins, limit: int
) -> int | None:
    """A time that about twice as many names are newer than are wanted: sorting all takes long."""
    columns, several = names.c, 2 * limit * _NAMES_EACH // _SAMPLED
    query = select(columns.requested_at).where(
        *begins, *times(names, wanted), columns.requested_at % _SAMPLED == 0
    )
    sample = sorted(connection.execute(query).scalars(), reverse=True)
    return sample[several] if len(sample) > several else None


def _by_names(
    connection: Connection, wanted: EnrollmentFilter, begins: Begins, limit: int, since: int | None
) -> list[str]:
    """The newest of all that begin so (and are no older): no table but the names is asked.

    An enrollment comes once for each name of it; so many rows hold enough of them.
    """
    columns = names.c
    query = select(columns.enrollment).where(*begins, *times(names, wanted))
    if since is not None:
        query = query.where(columns.requested_at >= since)
    # An order that no index has: else PostgreSQL hopes to find the few among the newest.
    query = query.order_by((columns.requested_at + 0).desc(), columns.enrollment.desc())
    found = connection.execute(query.limit(limit * _NAMES_EACH)).scalars()
    return list(dict.fromkeys(found))[:limit]


def _filtered(
    connection: Connection, wanted: EnrollmentFilter, begins: Begins, limit: int
) -> list[dict[str, Any]]:
    """All that begin so, each looked up for what else is wanted."""
    columns = enrollments.c
    begun = select(names.c.enrollment).where(*begins)
    query = filtered(wanted).where(columns.enrollment.in_(begun)).order_by(None)
    query = query.order_by((columns.requested_at + 0).desc(), columns.enrollment.desc())
    return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]


def _rows(connection: Connection, found: list[str]) -> list[dict[str, Any]]:
    """The rows of these, in this order."""
    query = select(enrollments).where(enrollments.c.enrollment.in_(found))
    rows = {row["enrollment"]: dict(row) for row in connection.execute(query).mappings()}
    return [rows[name] for name in found if name in rows]
