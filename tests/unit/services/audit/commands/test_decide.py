"""Enrollments that wait for an operator, and certificates that were revoked, in the read model."""

import pytest
from sqlalchemy import Engine

from services.audit.query.lookup import history, recent
from services.audit.record.write import store
from shared.log.enrollment import State
from shared.log.envelope import Stored
from shared.log.stages import Stage
from shared.log.subjects import (
    certificate_status,
    key_compromised,
    revocation_answer,
    revocation_command,
)
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

SERIAL = "4a" * 16


def fill(engine: Engine, *found: Stored, stream: str = STREAM) -> None:
    store(engine, stream, list(found))


def held(sequence: int, number: int) -> Stored:
    return stored(sequence, enrollment(number).subject(Stage.HOLD), event("EnrollmentHeld"))


def decided(sequence: int, number: int, *, approved: bool = True) -> Stored:
    subject = enrollment(number).subject(Stage.DECISION)
    return stored(sequence, subject, event("HoldDecided", approved=approved))


@pytest.fixture
def log(engine: Engine) -> Engine:
    """Held, decided, approved after a hold, denied after a hold, in flight."""
    denied = stored(13, enrollment(4).subject(Stage.VERDICT), event("EnrollmentRejected"))
    fill(
        engine,
        requested(1, 1),
        held(2, 1),
        requested(3, 2),
        held(4, 2),
        decided(5, 2),
        requested(6, 3),
        held(7, 3),
        decided(8, 3),
        approved(9, 3),
        requested(10, 4),
        held(11, 4),
        decided(12, 4, approved=False),
        denied,
        requested(14, 5),
    )
    return engine


def names(engine: Engine, state: State | None) -> list[str]:
    return [line.transaction_id for line in recent(engine, 10, state=state)]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.HELD, ["T1"]),
        (State.DECIDED, ["T2"]),
        (State.APPROVED, ["T3"]),
        (State.REJECTED, ["T4"]),
        (State.REQUESTED, ["T5"]),
        (State.ISSUED, []),
        (None, ["T5", "T4", "T3", "T2", "T1"]),
    ],
)
def test_enrollments_are_listed_by_the_state_they_are_in(
    log: Engine, state: State | None, expected: list[str]
) -> None:
    """What waits for the operator, and not what once did."""
    assert names(log, state) == expected


def test_a_list_says_the_state_that_it_was_asked_for(log: Engine) -> None:
    for state in (State.HELD, State.DECIDED, State.APPROVED, State.REJECTED, State.REQUESTED):
        assert {line.state for line in recent(log, 10, state=state)} == {state}


def test_a_held_enrollment_says_whose_it_is(log: Engine) -> None:
    (line,) = recent(log, 10, state=State.HELD)

    assert (line.device, line.result) == ("CN=Prüfgerät 7, O=Lab", "held")


def test_a_limit_counts_what_is_in_the_state(log: Engine) -> None:
    """Old holds must not drop out of sight behind newer enrollments."""
    assert [line.transaction_id for line in recent(log, 1, state=State.HELD)] == ["T1"]


def test_a_state_goes_together_with_a_profile_and_a_search(log: Engine) -> None:
    assert recent(log, 10, profile="other", state=State.HELD) == []
    assert recent(log, 10, search="T2", state=State.HELD) == []
    assert len(recent(log, 10, profile="corp", search="T1", state=State.HELD)) == 1


def test_the_story_of_a_held_enrollment_is_told_in_order(log: Engine) -> None:
    assert [e["type"] for e in history(log, "T4")] == [
        "EnrollmentRequested", "EnrollmentHeld", "HoldDecided", "EnrollmentRejected",
    ]  # fmt: skip


def test_the_story_of_a_certificate_goes_on_with_its_revocation(engine: Engine) -> None:
    fill(engine, requested(1, 1), approved(2, 1), issued(4, 1, SERIAL))
    order = revocation_command("local", SERIAL, 0)
    revoked = stored(
        6, certificate_status("local", SERIAL, 0), event("CertificateStatusChanged", serial=SERIAL)
    )
    marked = stored(5, key_compromised("aa" * 32, 0), event("KeyCompromised", serial=SERIAL))
    other = stored(
        7, certificate_status("local", "5b", 0), event("CertificateStatusChanged", serial="5b")
    )
    fill(engine, recorded(3, 1, SERIAL), marked, revoked, other, stream="CERTS")
    fill(
        engine,
        stored(1, order, event("RevocationOrdered", serial=SERIAL), 5),
        stored(2, revocation_answer(order), event("CommandAnswered"), 8),
        stream="OPS",
    )

    assert [e["type"] for e in history(engine, SERIAL)] == [
        "EnrollmentRequested",
        "EnrollmentApproved",
        "CertificateRecorded",
        "CertificateIssued",
        "KeyCompromised",
        "RevocationOrdered",
        "CertificateStatusChanged",
    ]
