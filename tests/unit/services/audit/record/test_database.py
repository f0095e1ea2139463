import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect, select, text
from sqlalchemy.engine import make_url

from services.audit.record.event_row import DecodedMessage, row
from services.audit.record.reconcile import forget
from services.audit.record.write import EmptiedError, position, store
from services.audit.roles import Level, Operator
from services.audit.store.api_tokens import add_token, operator_of
from services.audit.store.engine import SCHEMA, migrate, open_engine
from services.audit.store.tables import PREFIXED, events, metadata
from shared.config.load import SettingsError
from shared.log.envelope import TYPE, Message, Stored
from tests.unit.services.audit.stories import STREAM, requested, stored

pytestmark = pytest.mark.slow


def rows(*sequences: int) -> list[Stored]:
    return [requested(sequence, sequence) for sequence in sequences]


def kept(engine: Engine) -> list[tuple[str, int]]:
    query = select(events.c.stream, events.c.sequence).order_by(events.c.stream, events.c.sequence)
    with engine.connect() as connection:
        return [tuple(found) for found in connection.execute(query)]  # type: ignore[misc]


def test_migrations_make_the_tables_and_indexes_that_queries_use(empty: Engine) -> None:
    migrate(empty)
    found = inspect(empty)

    for table in metadata.sorted_tables:
        columns = {c["name"]: c for c in found.get_columns(table.name)}
        assert set(columns) == {c.name for c in table.columns}
        assert {n for n, c in columns.items() if not c["nullable"]} == {
            c.name for c in table.columns if not c.nullable
        }
        indexes = {i["name"]: i["column_names"] for i in found.get_indexes(table.name)}
        assert indexes == {i.name: [c.name for c in i.columns] for i in table.indexes}


_COLLATED = text(
    "SELECT relname, attname FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid"
    " JOIN pg_collation ON attcollation = pg_collation.oid WHERE relkind = 'r' AND collname = 'C'"
)


@pytest.mark.xdist_group("postgresql")
def test_columns_that_are_searched_or_joined_by_key_are_of_one_order(postgres_url: str) -> None:
    """PostgreSQL takes no index of another collation than the other side of an equation has."""
    engine = open_engine(postgres_url)
    migrate(engine)
    with engine.connect() as connection:
        found = {tuple(row) for row in connection.execute(_COLLATED)}
    engine.dispose()
    ours = {(t.name, c.name) for t in metadata.sorted_tables for c in t.columns}

    assert found & ours == {
        (t.name, c.name) for t in metadata.sorted_tables for c in t.columns if c.type is PREFIXED
    }
    assert {table for table, column in found & ours if column == "enrollment"} == {
        "enrollments", "names", "commands", "orphans",
    }  # fmt: skip


def test_migrations_lead_to_the_schema_that_a_start_looks_for(empty: Engine) -> None:
    migrate(empty)
    with empty.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()

    assert found == SCHEMA


def test_migrating_twice_changes_nothing_and_keeps_the_rows(engine: Engine) -> None:
    store(engine, STREAM, rows(1, 2))
    migrate(engine)

    assert kept(engine) == [(STREAM, 1), (STREAM, 2)]


class KilledError(Exception):
    """In place of a kill -9: nothing after it is done."""


@pytest.mark.parametrize("statements", [1, 2, 3, 5, 9, 14, 20, 27, 35, 40, 44])
def test_migrations_that_are_killed_half_way_are_done_by_the_next_start(
    empty: Engine, statements: int
) -> None:
    left = statements

    def execute(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    event.listen(empty, "before_cursor_execute", execute)
    with suppress(KilledError):
        migrate(empty)
    killed = left < 0
    event.remove(empty, "before_cursor_execute", execute)
    migrate(empty)

    assert killed
    assert {table.name for table in metadata.sorted_tables} <= {*inspect(empty).get_table_names()}


_MIGRATE = """
import sys
from services.audit.store.engine import migrate, open_engine
migrate(open_engine(sys.argv[1]))
"""


def test_replicas_that_start_together_migrate_one_after_the_other(empty: Engine) -> None:
    url = empty.url.render_as_string(hide_password=False)
    started = [subprocess.Popen([sys.executable, "-c", _MIGRATE, url]) for _ in range(4)]

    assert [process.wait(60) for process in started] == [0] * len(started)
    assert {table.name for table in metadata.sorted_tables} <= {*inspect(empty).get_table_names()}


def test_before_the_first_row_the_position_is_zero(engine: Engine) -> None:
    assert position(engine, STREAM) == 0


def test_rows_and_position_are_stored_together(engine: Engine) -> None:
    assert store(engine, STREAM, rows(1, 2, 5)) == 3

    assert position(engine, STREAM) == 5
    assert kept(engine) == [(STREAM, 1), (STREAM, 2), (STREAM, 5)]


def test_storing_again_adds_nothing(engine: Engine) -> None:
    store(engine, STREAM, rows(1, 2, 3))

    assert store(engine, STREAM, rows(1, 2, 3)) == 0
    assert store(engine, STREAM, rows(2, 3, 4)) == 1
    assert [sequence for _, sequence in kept(engine)] == [1, 2, 3, 4]
    assert position(engine, STREAM) == 4


def test_storing_nothing_moves_nothing(engine: Engine) -> None:
    assert store(engine, STREAM, []) == 0
    assert position(engine, STREAM) == 0


def test_what_follows_on_a_position_that_is_gone_is_not_stored(engine: Engine) -> None:
    """Else the position would stand behind a hole that nobody fills."""
    store(engine, STREAM, rows(1, 2, 3), after=0)
    store(engine, STREAM, rows(4), after=3)
    store(engine, STREAM, rows(5), after=2)
    forget(engine)
    for following in (rows(6), []):
        with pytest.raises(EmptiedError):
            store(engine, STREAM, following, after=5)

    assert position(engine, STREAM) == 0
    assert kept(engine) == []


_WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


@pytest.mark.xdist_group("postgresql")
def test_to_empty_the_database_waits_for_what_is_being_stored(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    migrate(engine)
    store(engine, STREAM, rows(1, 2))
    arrived, go_on = Event(), Event()

    def hold(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO positions"):
            arrived.set()
            assert go_on.wait(20)

    event.listen(engine, "before_cursor_execute", hold)
    with ThreadPoolExecutor() as threads:
        storing = threads.submit(store, engine, STREAM, rows(3), after=2)
        assert arrived.wait(20)
        emptying = threads.submit(forget, engine)
        with engine.connect() as connection:
            while not emptying.done() and not connection.execute(_WAITING).scalar_one():
                connection.rollback()
        go_on.set()
        assert storing.result() == 1
        emptying.result()

    assert (kept(engine), position(engine, STREAM)) == ([], 0)
    engine.dispose()


def test_streams_have_positions_of_their_own(engine: Engine) -> None:
    store(engine, STREAM, rows(1, 2))
    store(engine, "CERTS", rows(1))

    assert (position(engine, STREAM), position(engine, "CERTS")) == (2, 1)
    assert kept(engine) == [("CERTS", 1), (STREAM, 1), (STREAM, 2)]


def test_a_batch_is_stored_whole_or_not_at_all(engine: Engine) -> None:
    store(engine, STREAM, rows(1))
    broken = [*rows(2), replace(rows(3)[0], time=2**70)]

    with pytest.raises(Exception, match=r"(?i)too (large|big)|out of range"):
        store(engine, STREAM, broken)
    assert kept(engine) == [(STREAM, 1)]
    assert position(engine, STREAM) == 1


def test_bytes_and_text_come_back_as_they_were(engine: Engine) -> None:
    message = Message(bytes(range(256)), {TYPE: "Prüf\u9375"})
    found = stored(1, "enroll.0.corp.t.c.0.request", message)
    store(engine, STREAM, [found])

    with engine.connect() as connection:
        (back,) = connection.execute(select(events)).mappings()
    assert dict(back) == row(STREAM, DecodedMessage.of(found))


def test_a_row_of_a_devices_odd_strings_is_stored(engine: Engine) -> None:
    """A transactionID is any bytes: a zero byte must not stop the recorder for ever."""
    found = requested(1, 1, transaction_id="A\0B")
    typed = stored(2, "enroll.0.corp.t.c.0.request", Message(b"", {TYPE: "A\0B"}))

    assert store(engine, STREAM, [found, typed]) == 2


def test_a_row_under_an_overlong_subject_is_stored(engine: Engine) -> None:
    """A gateway taken over can append there."""
    subject = f"enroll.0.{'p' * 400}.t.c.0.request"

    assert store(engine, STREAM, [stored(1, subject, Message(b"", {}))]) == 1


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_by_psycopg(scheme: str) -> None:
    engine = open_engine(f"{scheme}://user:password@db.example/audit")

    assert engine.dialect.driver == "psycopg"
    engine.dispose()


def test_sqlite_lets_readers_read_while_it_writes(tmp_path: Any) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10000
    engine.dispose()


def test_a_sqlite_file_is_made_for_its_owner_alone_and_closed_to_others_when_it_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.db"
    before = os.umask(0)
    try:
        for _ in range(2):
            engine = open_engine(f"sqlite:///{path}")
            migrate(engine)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
            engine.dispose()
            assert set(modes.values()) == {0o600}, modes
            path.chmod(0o644)
    finally:
        os.umask(before)


@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize(
    ("query", "statement", "lock", "connect"),
    [
        ({}, "1min", "30s", "5"),
        ({"options": "-c statement_timeout=7s"}, "7s", "30s", "5"),
        ({"options": "-c lock_timeout=0", "connect_timeout": "11"}, "1min", "0", "11"),
    ],
)
def test_what_the_url_sets_goes_before_our_limits(
    postgres_url: str, query: dict[str, str], statement: str, lock: str, connect: str
) -> None:
    url = make_url(postgres_url).update_query_dict(query)
    engine = open_engine(url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("statement_timeout", "lock_timeout")
        ]
        parameters = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    engine.dispose()

    assert found == [statement, lock]
    assert parameters["connect_timeout"] == connect


def test_to_empty_the_database_leaves_who_may_sign_in(engine: Engine) -> None:
    add_token(engine, "desk", Level.VIEWER, "a token", 0)
    store(engine, STREAM, rows(1))
    forget(engine)

    assert kept(engine) == []
    assert operator_of(engine, "a token") == Operator("desk", Level.VIEWER)


def test_a_database_of_another_version_is_refused_in_a_sentence_and_left_as_it_is(
    empty: Engine,
) -> None:
    with empty.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('0004')"))
    with pytest.raises(SettingsError, match=r"does not know the database's schema 0004;"):
        migrate(empty)

    assert inspect(empty).get_table_names() == ["alembic_version"]
