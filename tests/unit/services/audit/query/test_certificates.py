"""What became of certificates: from the log in any batches, listed by index, as the rules say."""

import random
from itertools import product
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite

from services.audit.query.certificates import (
    CertificateFilter,
    certificates_query,
    count_expiring,
    count_not_renewed,
    expiring_after,
    list_certificates,
)
from services.audit.query.filters import encode_cursor
from services.audit.query.life import CertificateState, RenewalWindows, View, state_of
from services.audit.record.write import store
from services.audit.store.engine import lock_all, migrate
from services.audit.store.tables import certificates
from shared.log.envelope import Stored
from shared.log.events.certificates import CertificateStatus
from shared.log.events.commands import RevocationReason
from shared.log.streams import CERTS
from shared.log.subjects import certificate_issued, certificate_status
from tests.unit.services.audit.stories import enrollment, event, stored

NOW: Final = 1_800_000_000
DAY: Final = 86400
WINDOWS: Final = RenewalWindows({"kiosks": 0, "short": 4 * DAY}, 400 * DAY)
YEAR: Final = (NOW - 365 * DAY, NOW + DAY)


def recorded(sequence: int, serial: str, **changes: Any) -> Stored:
    values = {"enrollment": enrollment(sequence).prefix(), "renews": ""} | changes
    found = event("CertificateRecorded", serial=serial, **values)
    return stored(sequence, certificate_issued("local", serial), found)


def status(sequence: int, serial: str, changed: CertificateStatus, reason: str) -> Stored:
    found = event(
        "CertificateStatusChanged", serial=serial, status=changed, reason=RevocationReason(reason)
    )
    return stored(sequence, certificate_status("local", serial, sequence), found)


def rows(engine: Engine) -> dict[str, dict[str, Any]]:
    with engine.connect() as connection:
        found = connection.execute(select(certificates)).mappings()
        return {row["serial"]: dict(row) for row in found}


def listed(engine: Engine, view: View | None = None, **filters: Any) -> list[dict[str, Any]]:
    filter_ = CertificateFilter(**({"windows": WINDOWS, "now": NOW, "view": view} | filters))
    with engine.connect() as connection:
        return list(list_certificates(connection, filter_).rows)


def serials(engine: Engine, view: View | None = None, **filters: Any) -> list[str]:
    return [row["serial"] for row in listed(engine, view, **filters)]


# From the log


STORY: Final = [
    recorded(1, "0a"),
    recorded(2, "0b", renews="0a"),
    status(3, "0a", CertificateStatus.HELD, "certificateHold"),
    recorded(4, "0c", renews="0b"),
    recorded(5, "0d", renews="0a"),
    status(6, "0a", CertificateStatus.RELEASED, "removeFromCRL"),
    recorded(7, "0e", renews="ff"),
    recorded(8, "0f", renews="0f"),
]


def test_a_renewed_certificate_is_superseded_and_not_revoked(engine: Engine) -> None:
    store(engine, CERTS, [recorded(1, "0a"), recorded(2, "0b", renews="0a")])
    old, new = rows(engine)["0a"], rows(engine)["0b"]

    assert (old["superseded_by"], old["superseded_at"]) == ("0b", new["recorded_at"])
    assert old["revoked_at"] is None
    assert new["superseded_by"] is None


def test_the_newest_renewal_counts_whatever_the_batches(engine: Engine) -> None:
    store(engine, CERTS, STORY)
    whole = rows(engine)
    with engine.begin() as connection:
        for table in ("certificates", "events", "positions"):
            connection.execute(text(f"DELETE FROM {table}"))
    for first, last in ((0, 1), (1, 2), (0, 4), (4, 5), (3, 8)):
        store(engine, CERTS, STORY[first:last])

    assert rows(engine) == whole
    assert whole["0a"]["superseded_by"] == "0d"
    assert whole["0b"]["superseded_by"] == "0c"
    assert whole["0f"]["superseded_by"] is None


def test_a_certificate_that_others_only_name_is_in_no_list(engine: Engine) -> None:
    store(engine, CERTS, STORY)

    assert "ff" in rows(engine)
    assert not any("ff" in serials(engine, view) for view in (None, *View))


def test_a_renewal_of_another_issuer_supersedes_nothing(engine: Engine) -> None:
    other = event("CertificateRecorded", serial="0b", renews="0a")
    store(
        engine,
        CERTS,
        [recorded(1, "0a"), stored(2, certificate_issued("other", "0b"), other)],
    )
    with engine.connect() as connection:
        query = select(certificates.c.issuer).where(certificates.c.superseded_by == "0b")
        assert connection.execute(query).scalars().all() == ["other"]


def test_an_older_schema_is_filled_as_the_log_fills_the_new_one(
    empty: Engine, engine: Engine
) -> None:
    """`engine` is `empty` with today's schema: what it holds is taken before it is emptied."""
    store(engine, CERTS, STORY)
    expected = rows(engine)
    with empty.begin() as connection:
        names = connection.execute(text(_TABLES[empty.dialect.name])).scalars().all()
        for name in names:
            connection.execute(text(f'DROP TABLE "{name}"'))
    config = Config()
    config.set_main_option("script_location", "services.audit.store:migrations")
    with empty.begin() as connection:
        lock_all(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "202611271500")
    new = ("superseded_by", "superseded_at")
    with empty.begin() as connection:
        for row in expected.values():
            if row["enrollment"]:
                values = {name: value for name, value in row.items() if name not in new}
                connection.execute(insert(certificates).values(**values))
    migrate(empty)

    assert rows(empty) == expected


_TABLES: Final = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
}


# Lists


def filled(engine: Engine, found: list[dict[str, Any]]) -> None:
    common = dict.fromkeys(certificates.c.keys()) | {
        "issuer": "local", "enrollment": "e", "profile": "corp", "subject": "", "recorded_at": 1,
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(certificates), [common | row for row in found])


def every_kind() -> list[dict[str, Any]]:
    """Certificates of every age, profile and fate, at the edges of what the rules say."""
    chance = random.Random(14)
    ends = (-DAY, -1, 0, 1, DAY, 2 * DAY, 2 * DAY + 1, 20 * DAY, 30 * DAY, 61 * DAY, 200 * DAY)
    lives = (DAY, 5 * DAY, 60 * DAY, 365 * DAY)
    fates: tuple[dict[str, Any], ...] = (
        {},
        {"superseded_by": "ff", "superseded_at": 5},
        {"revoked_at": 7, "revocation_reason": "keyCompromise"},
        {"revoked_at": 7, "revocation_reason": "certificateHold"},
        {"revoked_at": 0, "revocation_reason": "removeFromCRL"},
        {"revoked_at": 7, "revocation_reason": "certificateHold", "superseded_by": "ff",
         "superseded_at": 5},
    )  # fmt: skip
    found = [
        {"profile": profile, "not_after": NOW + end, "not_before": NOW + end - life, **fate}
        for end, life, profile, fate in product(ends, lives, ("corp", "kiosks", "short"), fates)
    ]
    chance.shuffle(found)
    return [row | {"serial": f"{i:04x}", "recorded_at": i} for i, row in enumerate(found)]


def test_every_list_has_what_the_rules_put_there(engine: Engine) -> None:
    kinds = every_kind()
    filled(engine, kinds)
    states: dict[str, set[str]] = {state: set() for state in CertificateState}
    late = set()
    for row in kinds:
        states[state_of({"revoked_at": None, "revocation_reason": None} | row, NOW)].add(
            row["serial"]
        )
        if WINDOWS.should_have_renewed(row["profile"], row["not_before"], row["not_after"], NOW):
            late.add(row["serial"])

    def whole(view: View | None) -> list[str]:
        found, cursor = [], None
        with engine.connect() as connection:
            while True:
                filter_ = CertificateFilter(WINDOWS, NOW, view, cursor=cursor, limit=200)
                page = list_certificates(connection, filter_)
                found += [row["serial"] for row in page.rows]
                if (cursor := page.next_cursor) is None:
                    return found

    assert all(states.values())
    for state, expected in states.items():
        found = whole(View(state))
        assert len(found) == len(set(found))
        assert set(found) == expected, state
    assert set(whole(View.NOT_RENEWED)) == states["valid"] & late != set()
    ends = {row["serial"]: row["not_after"] for row in kinds}
    soon = {serial for serial in states["valid"] if ends[serial] <= NOW + 30 * DAY}
    assert set(whole(View.EXPIRING)) == soon
    assert [ends[serial] for serial in whole(View.EXPIRING)] == sorted(map(ends.get, soon))  # type: ignore[type-var]
    assert set(whole(None)) == ends.keys()
    with engine.connect() as connection:
        counts = count_not_renewed(connection, WINDOWS, NOW)
        windows = count_expiring(connection, NOW, (1, 30))
    assert sum(counts.values()) == len(states["valid"] & late)
    assert sum(each[1] for each in windows.values()) == len(soon)


def test_a_device_is_late_when_half_of_its_window_is_gone() -> None:
    begin, end = NOW, NOW + 360 * DAY
    late = [
        day for day in range(365)
        if WINDOWS.should_have_renewed("corp", begin, end, NOW + day * DAY)
    ]  # fmt: skip
    short = [
        day for day in range(365)
        if WINDOWS.should_have_renewed("short", begin, end, NOW + day * DAY)
    ]  # fmt: skip

    assert (late[0], late[-1]) == (300, 360)
    assert (short[0], short[-1]) == (358, 360)


def test_a_device_that_enrolled_anew_under_its_name_is_not_late(engine: Engine) -> None:
    begin, end = YEAR
    old = {"serial": "0a", "subject": "CN=x", "not_before": begin, "not_after": end}
    filled(engine, [old])
    assert serials(engine, View.NOT_RENEWED) == serials(engine, View.EXPIRING) == ["0a"]
    assert [row["not_renewed"] for row in listed(engine)] == [True]
    new = old | {"serial": "0b", "recorded_at": 2, "not_after": NOW + 365 * DAY}
    filled(engine, [new, new | {"serial": "0c", "profile": "short"}])
    assert serials(engine, View.NOT_RENEWED) == serials(engine, View.EXPIRING) == []
    with engine.begin() as connection:
        connection.execute(text("UPDATE certificates SET revoked_at = 5 WHERE serial = '0b'"))

    assert serials(engine, View.NOT_RENEWED) == ["0a"]  # what it enrolled is revoked


def test_certificates_without_a_subject_are_not_taken_for_each_other(engine: Engine) -> None:
    begin, end = YEAR
    for serial, at in (("0a", 1), ("0b", 2)):
        row = {"serial": serial, "subject": "", "recorded_at": at}
        filled(engine, [row | {"not_before": begin, "not_after": end}])

    assert serials(engine, View.NOT_RENEWED) == ["0a", "0b"]


def test_lists_are_of_profiles_and_issuers_that_are_asked_for(engine: Engine) -> None:
    end = {"not_before": NOW - DAY, "not_after": NOW + DAY}
    filled(
        engine,
        [
            end | {"serial": "0a", "profile": "corp", "recorded_at": 1},
            end | {"serial": "0b", "profile": "short", "recorded_at": 2},
            end | {"serial": "0c", "profile": "kiosks", "recorded_at": 3},
            end | {"serial": "0d", "profile": "corp", "issuer": "other", "recorded_at": 4},
        ],
    )

    assert serials(engine, profiles=("corp", "kiosks")) == ["0d", "0c", "0a"]
    assert serials(engine, View.EXPIRING, profiles=("short", "kiosks")) == ["0b", "0c"]
    assert serials(engine, issuer="other") == ["0d"]
    assert serials(engine, profiles=()) == []
    assert serials(engine, View.EXPIRING, days=0) == []


def test_those_that_expire_follow_from_a_place(engine: Engine) -> None:
    filled(
        engine,
        [
            {"serial": f"0{i}", "not_before": NOW - DAY, "not_after": NOW + i, "recorded_at": i}
            for i in range(5)
        ],
    )
    with engine.connect() as connection:
        found = expiring_after(connection, (NOW + 1, "local", "01"), NOW + 3, 10)
        first = expiring_after(connection, (NOW, "", ""), NOW + 3, 2)

    assert [row["serial"] for row in found] == ["02", "03"]
    assert [row["serial"] for row in first] == ["00", "01"]


# By index


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


def test_every_list_of_certificates_walks_an_index_and_sorts_nothing(engine: Engine) -> None:
    cursors, profiles = (None, encode_cursor(1, "a", "b")), (None, ("corp",))
    for view, cursor, only, issuer in product((None, *View), cursors, profiles, (None, "local")):
        filter_ = CertificateFilter(WINDOWS, NOW, view, profiles=only, issuer=issuer, cursor=cursor)
        plan = explained(engine, certificates_query(filter_).limit(51))
        assert "certificates_by_" in plan, (view, cursor, only)
        assert "TEMP B-TREE" not in plan, (view, cursor, only)
        assert "Sort" not in plan, (view, cursor, only)
        assert "Seq Scan" not in plan, (view, cursor, only)
