"""Lists of enrollments: what the filters say, page by page, by the indexes."""

import itertools
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.dialects import postgresql, sqlite

from services.audit.query import search as searching
from services.audit.query.enrollments import count_enrollments, list_enrollments
from services.audit.query.filters import (
    BadCursorError,
    EnrollmentFilter,
    decode_cursor,
    encode_cursor,
    filtered,
)
from services.audit.record.write import store
from tests.unit.services.audit.record.test_enrollments import log, rows
from tests.unit.services.audit.stories import STREAM

COUNT = 40
FILTERS: list[dict[str, Any]] = [
    {},
    {"profile": "corp"},
    {"states": ("issued",)},
    {"states": ("issued", "rejected", "held")},
    {"profile": "lab", "states": ("rejected",)},
    {"actions": ("scep_pkcsreq_intune",)},
    {"profile": "corp", "actions": ("scep_pkcsreq",)},
    {"actions": ("scep_pkcsreq", "scep_pkcsreq_intune"), "states": ("issued", "rejected")},
]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    store(engine, STREAM, log(11, COUNT)[STREAM])
    return engine


def pages(engine: Engine, **wanted: Any) -> list[dict[str, Any]]:
    """All pages one after another."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        with engine.connect() as connection:
            page = list_enrollments(connection, EnrollmentFilter(cursor=cursor, **wanted))
        found += page.rows
        cursor = page.next_cursor
        if cursor is None:
            return found


def expected(engine: Engine, **wanted: Any) -> list[str]:
    columns = {"profile": "profile", "states": "state", "actions": "action"}
    fitting = [
        row
        for row in rows(engine, "enrollments")
        if all(row[columns[key]] in _several(value) for key, value in wanted.items())
    ]
    fitting.sort(key=lambda row: (row["requested_at"], row["enrollment"]), reverse=True)
    return [row["enrollment"] for row in fitting]


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


@pytest.mark.parametrize("limit", [1, 7, COUNT, 500])
@pytest.mark.parametrize("wanted", FILTERS)
def test_pages_hold_every_fitting_enrollment_once_and_the_newest_first(
    filled: Engine, wanted: dict[str, Any], limit: int
) -> None:
    found = [row["enrollment"] for row in pages(filled, limit=limit, **wanted)]
    with filled.connect() as connection:
        total = count_enrollments(connection, EnrollmentFilter(limit=limit, **wanted))

    assert found == expected(filled, **wanted)
    assert total == len(found)


def test_a_window_of_time_has_its_beginning_and_not_its_end(filled: Engine) -> None:
    times = sorted(row["requested_at"] for row in rows(filled, "enrollments"))
    found = pages(filled, since=times[5], until=times[20])

    assert sorted(row["requested_at"] for row in found) == times[5:20]


@pytest.mark.parametrize(("many", "looked_at"), [(0, 1), (0, 30), (3, 10_000), (10_000, 0)])
@pytest.mark.parametrize(
    "search", ["T1", "t1", "t17", "device", "prüfgerät", "nobody", "%", " T17 ", " "]
)
def test_a_search_finds_what_a_name_begins_with_however_many_there_are(
    filled: Engine, monkeypatch: pytest.MonkeyPatch, many: int, looked_at: int, search: str
) -> None:
    monkeypatch.setattr(searching, "_MANY", many)
    monkeypatch.setattr(searching, "_LOOKED_AT", looked_at)
    wanted = search.strip().lower()
    told = [n for n in rows(filled, "names") if wanted and n["name"].startswith(wanted)]
    fitting = {n["enrollment"] for n in told}
    found = [row["enrollment"] for row in pages(filled, search=search, limit=7)]

    assert set(found) == fitting
    assert found == [each for each in expected(filled) if each in fitting]


@pytest.mark.parametrize("since", ["sampled", "far too late", "from the beginning"])
def test_the_newest_of_many_are_found_whatever_the_sample_says(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    store(engine, STREAM, log(5, 400)[STREAM])
    monkeypatch.setattr(searching, "_MANY", 100)
    monkeypatch.setattr(searching, "_LOOKED_AT", 0)
    monkeypatch.setattr(searching, "_SAMPLED", 3)
    asked: list[int | None] = []
    really = searching._threshold

    def threshold(*arguments: Any) -> int | None:
        found = {
            "sampled": really(*arguments),
            "far too late": 2**62,
            "from the beginning": 0,
        }[since]
        asked.append(found)
        return found

    monkeypatch.setattr(searching, "_threshold", threshold)
    with engine.connect() as connection:
        page = list_enrollments(connection, EnrollmentFilter(search="t", limit=2))

    assert [row["enrollment"] for row in page.rows] == expected(engine)[:2]
    assert asked
    assert None not in asked


def test_a_search_among_others_finds_what_fits_both(filled: Engine) -> None:
    both = {"profile": "corp", "states": ("issued", "rejected")}
    fitting = {n["enrollment"] for n in rows(filled, "names") if n["name"].startswith("t1")}
    found = [row["enrollment"] for row in pages(filled, search="t1", limit=3, **both)]

    assert found == [each for each in expected(filled, **both) if each in fitting]
    assert found


@pytest.mark.parametrize(
    "cursor", ["", "x", "eyJ4IjoxfQ", "WzEsMl0", "W10", "\u00fc", "W1sx", "W251bGwsInguIl0"]
)
def test_a_cursor_that_no_list_gave_is_the_one_error(filled: Engine, cursor: str) -> None:
    with pytest.raises(BadCursorError), filled.connect() as connection:
        list_enrollments(connection, EnrollmentFilter(cursor=cursor))


@pytest.mark.parametrize("limit", [-5, 0, 10**9])
def test_a_limit_has_its_bounds(filled: Engine, limit: int) -> None:
    with filled.connect() as connection:
        page = list_enrollments(connection, EnrollmentFilter(limit=limit))

    assert len(page.rows) == (1 if limit < 1 else COUNT)


PLANNED = [
    {key: value for key, value in zip(keys, values, strict=True) if value is not None}
    for keys, values in (
        (("profile", "states"), values)
        for values in itertools.product((None, "corp"), (None, ("issued",)))
    )
]


BY_ACTION = [
    {"actions": ("scep_pkcsreq",)},
    {"actions": ("scep_pkcsreq",), "profile": "corp"},
    {"actions": ("scep_pkcsreq",), "states": ("rejected",)},
]


@pytest.mark.parametrize("cursor", [False, True])
@pytest.mark.parametrize("wanted", [*PLANNED, *BY_ACTION])
def test_every_list_walks_an_index_and_sorts_nothing(
    filled: Engine, wanted: dict[str, Any], *, cursor: bool
) -> None:
    place = None
    if cursor:
        with filled.connect() as connection:
            place = list_enrollments(connection, EnrollmentFilter(limit=1)).next_cursor
    plan = explained(filled, filtered(EnrollmentFilter(cursor=place, **wanted)).limit(51))

    assert "enrollments_by_" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan


def explained(engine: Engine, query: Any) -> str:
    """How the database would do it; PostgreSQL is told that its table is not small."""
    dialect = sqlite.dialect() if engine.dialect.name == "sqlite" else postgresql.dialect()
    said = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}")
            return "\n".join(str(row[3]) for row in plan)
        for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
            connection.execute(text(f"SET LOCAL {setting} = off"))
        return "\n".join(str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN {said}"))


def test_names_are_found_by_a_range_of_their_index(filled: Engine) -> None:
    found = searching.names
    query = searching.select(found.c.enrollment).where(
        found.c.name >= "t1", found.c.name < "t1\U0010ffff"
    )
    plan = explained(filled, query)

    assert "Seq Scan" not in plan
    assert "SCAN names" not in plan


@pytest.mark.parametrize("key", ["enroll.0.corp.\u00e9.csr.0", "", "'; --", "\U0001f511"])
def test_a_cursor_that_a_list_gave_is_taken_whatever_somebody_planted(key: str) -> None:
    assert decode_cursor(encode_cursor(7, key)) == [7, key]


def test_an_action_that_nothing_has_finds_nothing(filled: Engine) -> None:
    assert pages(filled, actions=("",)) == []
