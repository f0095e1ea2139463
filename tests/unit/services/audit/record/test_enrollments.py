"""The rows that operators ask for: the same whatever the batches, the order of streams, the way."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from services.audit.record.reconcile import forget
from services.audit.record.write import store
from services.audit.store.engine import migrate, open_engine
from services.audit.store.tables import metadata
from shared.log.envelope import Stored
from shared.log.stages import Stage
from shared.log.streams import CERTS, OPS
from shared.log.subjects import anchor_reload_command, reload_answer
from tests.support import golden
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    event,
    issued,
    recorded,
    requested,
    stored,
)

Log = dict[str, list[Stored]]
DERIVED = [table for table in metadata.sorted_tables if table.name not in ("events", "positions")]

ORDERS = (
    "ChallengeCreated", "ReloadOrdered", "RevocationOrdered", "ChallengeCancelled",
    "CommandAnswered", "ApiTokenCreated", "ApiTokenRevoked", "RetryOrdered",
    "ResumeOrdered", "WithdrawalOrdered",
)  # fmt: skip
CONFIRMATIONS = ("CertificateConfirmed", "ConfirmationFailed", "")
# Of replicas to the reload, the last of them to an order that nobody gave.
ANSWERS = [
    (
        reload_answer(anchor_reload_command("corp", order), f"replica-{i}"),
        event("CommandAnswered", done=done),
    )
    for i, (order, done) in enumerate(
        [("0123456789abcdef", True), ("0123456789abcdef", False), ("none", True)]
    )
]


def tables(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the model, by table."""
    with engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in DERIVED
        }


def rows(engine: Engine, name: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        found = connection.execute(select(metadata.tables[name])).mappings()
        return [dict(each) for each in found]


def log(seed: int, number: int = 12) -> Log:
    """Enrollments that end in every way, interleaved, and what the other streams say of them."""
    rng, enroll, certs = random.Random(seed), [], []
    stories = [_story(i, rng) for i in range(number)]
    while any(stories):
        steps = rng.choice([steps for steps in stories if steps])
        subject, found = steps.pop(0)
        enroll.append(stored(len(enroll) + 1, subject, found))
        if type(found).__name__ == "CertificateIssued":
            serial = found.serial
            certs.append(recorded(len(certs) + 1, int(serial, 16), serial))
            if rng.random() < 0.3:
                revoked = event("CertificateStatusChanged", serial=serial)
                certs.append(stored(len(certs) + 1, f"cert.local.{serial}.status.0", revoked))
    operators = [
        stored(i + 1, *found)
        for i, found in enumerate([*(golden.EVENTS[kind, 1] for kind in ORDERS), *ANSWERS])
    ]
    return {STREAM: enroll, CERTS: certs, OPS: operators}


def _story(number: int, rng: random.Random) -> list[tuple[str, Any]]:
    found = enrollment(number, rng.choice(("corp", "lab")))
    steps: list[tuple[Stage, Any]] = [
        (Stage.REQUEST, event("EnrollmentRequested", transaction_id=f"T{number}"))
    ]
    if rng.random() < 0.3:
        steps += [(Stage.HOLD, event("EnrollmentHeld")), (Stage.DECISION, event("HoldDecided"))]
    if rng.random() < 0.3:
        steps.append((Stage.VERDICT, event("EnrollmentRejected")))
    else:
        steps.append((Stage.VERDICT, event("EnrollmentApproved", existing="", renews=None)))
        if rng.random() < 0.8:
            withheld = rng.random() < 0.5
            outcome = event("CertificateIssued", serial=f"{number:032x}", withheld=withheld)
            steps.append((Stage.OUTCOME, outcome))
            if withheld and (kind := rng.choice(CONFIRMATIONS)):
                steps.append((Stage.CONFIRMATION, event(kind, serial=f"{number:032x}")))
        else:
            steps.append((Stage.OUTCOME, event("IssuanceFailed")))
    return [(found.subject(stage), each) for stage, each in steps]


def feed(engine: Engine, found: Log, rng: random.Random | None = None) -> None:
    """Store a log: at once, or in batches of any size, streams in any order, some of it twice."""
    if rng is None:
        for stream, messages in found.items():
            store(engine, stream, messages)
        return
    left = dict.fromkeys(found, 0)
    while left:
        stream = rng.choice(sorted(left))
        first = max(0, left[stream] - rng.randint(0, 3))
        last = left[stream] + rng.randint(1, 7)
        store(engine, stream, found[stream][first:last])
        left[stream] = last
        if last >= len(found[stream]):
            del left[stream]


@pytest.mark.parametrize("seed", range(5))
def test_neither_batches_nor_the_order_of_streams_nor_repetition_change_a_row(
    engine: Engine, tmp_path: Path, seed: int
) -> None:
    found = log(seed)
    at_once = open_engine(f"sqlite:///{tmp_path}/other.db")
    migrate(at_once)
    feed(at_once, found)
    feed(engine, found, random.Random(seed))

    assert tables(engine) == tables(at_once)
    assert all(rows(engine, name) for name in ("enrollments", "certificates", "counters"))
    at_once.dispose()


def shuffled(found: Log, rng: random.Random) -> Log:
    """Events in an order that no service writes: as somebody might plant them."""
    messages = rng.sample(found[STREAM], len(found[STREAM]))
    again = [replace(each, sequence=i + 1, time=i + 1) for i, each in enumerate(messages)]
    return found | {STREAM: again}


@pytest.mark.parametrize("seed", range(5))
def test_nor_do_batches_where_events_stand_in_no_order(
    engine: Engine, tmp_path: Path, seed: int
) -> None:
    found = shuffled(log(seed), random.Random(seed))
    at_once = open_engine(f"sqlite:///{tmp_path}/other.db")
    migrate(at_once)
    feed(at_once, found)
    feed(engine, found, random.Random(seed))

    assert tables(engine) == tables(at_once)
    at_once.dispose()


def test_a_database_that_was_emptied_is_filled_with_the_same_rows(engine: Engine) -> None:
    found = log(7)
    feed(engine, found, random.Random(7))
    before = tables(engine)
    forget(engine)
    feed(engine, found)

    assert tables(engine) == before


def test_an_enrollment_is_told_in_one_row(engine: Engine) -> None:
    story: Sequence[Stored] = (requested(1, 1), approved(2, 1, "CN=device-1"), issued(3, 1, "ab"))
    store(engine, STREAM, story)
    (row,) = rows(engine, "enrollments")

    assert row["enrollment"] == enrollment(1).prefix()
    assert (row["state"], row["device"], row["serial"]) == ("issued", "CN=device-1", "ab")
    assert (row["requested_at"], row["verdict_at"], row["ended_at"]) == tuple(
        message.time for message in story
    )
    assert (row["challenge"], row["claim_subject"]) == ("signed", "device-guid")
    assert [each["count"] for each in rows(engine, "counters")] == [1]
    (device,) = rows(engine, "devices")
    assert (device["device"], device["issued"], device["refused"]) == ("CN=device-1", 1, 0)
    names = {each["name"] for each in rows(engine, "names")}
    assert {"device-1", "t1", "ab", "device.example", "device-guid"} <= names


@pytest.mark.parametrize(
    ("kind", "state", "result"),
    [
        ("CertificateConfirmed", "issued", "success"),
        ("ConfirmationFailed", "failed", "not_confirmed"),
    ],
)
def test_a_withheld_certificate_ends_its_enrollment_when_it_is_confirmed(
    engine: Engine, kind: str, state: str, result: str
) -> None:
    place = enrollment(1)
    outcome = event("CertificateIssued", serial="ab", withheld=True)
    withheld = stored(3, place.subject(Stage.OUTCOME), outcome)
    for message in (requested(1, 1), approved(2, 1, "CN=device-1"), withheld):
        store(engine, STREAM, [message])
    (row,) = rows(engine, "enrollments")
    assert (row["state"], row["serial"], row["ended_at"]) == ("confirming", "ab", None)
    assert rows(engine, "counters") == []

    end = stored(4, place.subject(Stage.CONFIRMATION), event(kind, serial="ab"))
    store(engine, STREAM, [end])
    (row,), (counter,) = rows(engine, "enrollments"), rows(engine, "counters")
    assert (row["state"], row["ended_at"]) == (state, end.time)
    assert (counter["result"], counter["count"]) == (result, 1)


def test_an_end_in_a_later_batch_is_counted_under_what_the_verdict_told(engine: Engine) -> None:
    for message in (requested(1, 1), approved(2, 1, "CN=device-1"), issued(3, 1, "ab")):
        store(engine, STREAM, [message])
    (counter,) = rows(engine, "counters")
    (device,) = rows(engine, "devices")

    assert (counter["challenge"], counter["result"]) == ("signed", "success")
    assert device["last_state"] == "issued"


def test_what_is_newest_does_not_depend_on_which_shard_is_recorded_first(engine: Engine) -> None:
    """Two requests to one gateway by one device, on two shards."""
    older, newer = (_ended(shard, seconds) for shard, seconds in (("0", 1.0), ("1", 2.0)))
    for stream, messages in (("ENROLL_1", newer), ("ENROLL_0", older)):
        store(engine, stream, messages)
    (gateway,), (device,) = rows(engine, "replicas"), rows(engine, "devices")

    assert gateway["last_seen"] == newer[0].time
    assert (device["last_seen"], device["last_enrollment"]) == (
        newer[-1].time,
        newer[-1].subject.rpartition(".")[0],
    )
    assert device["issued"] == 2


def _ended(shard: str, seconds: float) -> list[Stored]:
    place = replace(enrollment(1), shard=shard)
    steps = (
        (Stage.REQUEST, event("EnrollmentRequested")),
        (Stage.VERDICT, event("EnrollmentApproved", existing="", renews=None)),
        (Stage.OUTCOME, event("CertificateIssued")),
    )
    return [
        stored(number, place.subject(stage), found, seconds)
        for number, (stage, found) in enumerate(steps, 1)
    ]
