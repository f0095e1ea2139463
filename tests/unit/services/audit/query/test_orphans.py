"""Possible orphans: what the log says of each, in whichever order it is recorded."""

from typing import Any

from sqlalchemy import Engine

from services.audit.query.history import history_of
from services.audit.query.orphans import count_open_orphans, list_orphans
from services.audit.record.write import store
from shared.log.streams import CERTS
from shared.log.subjects import order_change, possible_orphan
from tests.support import golden
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    event,
    requested,
    stored,
)

KEY = golden.ORDER_KEY
ENROLLMENT = enrollment(1).prefix()


def suspected(sequence: int, number: int = 0, **changes: Any) -> Any:
    found = event("OrphanSuspected", enrollment=ENROLLMENT, **changes)
    return stored(sequence, possible_orphan("corp", KEY, number), found)


def settled(sequence: int, number: int = 1, **changes: Any) -> Any:
    found = event("OrphanSettled", enrollment=ENROLLMENT, **changes)
    return stored(sequence, possible_orphan("corp", KEY, number), found)


def orphans(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        found = list_orphans(connection, 50)
        assert count_open_orphans(connection) == sum(row["open"] for row in found)
    return found


def test_a_suspicion_is_open_and_names_its_device(engine: Engine) -> None:
    store(engine, STREAM, [requested(1, 1), approved(2, 1, "CN=printer-7")])
    store(engine, CERTS, [suspected(1)])
    (row,) = orphans(engine)

    assert row["open"]
    assert (row["issuer"], row["key"], row["enrollment"]) == ("corp", KEY, ENROLLMENT)
    assert (row["device"], row["spki_sha256"]) == ("CN=printer-7", "aa" * 32)
    assert row["settled_at"] is None


def test_what_is_settled_is_closed_with_its_serial_numbers(engine: Engine) -> None:
    store(engine, CERTS, [suspected(1), settled(2)])
    (row,) = orphans(engine)

    assert not row["open"]
    assert row["serials"] == [golden.SERIAL]
    assert (row["detail"], row["operator"]) == ("revoked at the CA", "jörg@host")


def test_batches_make_no_difference(engine: Engine) -> None:
    store(engine, CERTS, [suspected(1)])
    store(engine, CERTS, [settled(2)])
    store(engine, CERTS, [suspected(3, 2, placement=1)])
    (row,) = orphans(engine)

    assert row["open"]
    assert row["placement"] == 1


def test_open_ones_come_first(engine: Engine) -> None:
    other = event("OrphanSuspected", enrollment=ENROLLMENT)
    store(engine, CERTS, [stored(1, possible_orphan("corp", "b" * 32, 0), other)])
    store(engine, CERTS, [suspected(2), settled(3)])

    assert [row["open"] for row in orphans(engine)] == [True, False]


def test_steps_of_an_order_are_on_its_enrollments_timeline(engine: Engine) -> None:
    store(engine, STREAM, [requested(1, 1), approved(2, 1)])
    step = event("OrderChanged", enrollment=ENROLLMENT)
    store(engine, CERTS, [stored(3, order_change("corp", KEY, 0), step), suspected(4)])
    with engine.connect() as connection:
        found = history_of(connection, ENROLLMENT)
    assert found is not None

    assert [each["type"] for each in found.events][-2:] == ["OrderChanged", "OrphanSuspected"]
