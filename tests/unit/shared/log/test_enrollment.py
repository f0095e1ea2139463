from typing import Any

import msgspec
import pytest

from shared.log.catalog import EVENT_TYPES
from shared.log.enrollment import (
    RETRY_DELAYS,
    TERMINAL,
    TRANSITIONS,
    Answer,
    NextAttempt,
    State,
    Wait,
    evolve,
    on_repeat,
)
from shared.log.events.enrollment import CertificateIssued, EnrollmentRejected, IssuanceFailed
from shared.log.reasons import Reason
from shared.scep.errors import FailInfo
from tests.support import golden
from tests.support.world import NOW, REQUEST_SHA256

STEPS = {
    (State.REQUESTED, "EnrollmentHeld"): State.HELD,
    (State.HELD, "HoldDecided"): State.DECIDED,
    (State.HELD, "EnrollmentApproved"): State.APPROVED,
    (State.HELD, "EnrollmentRejected"): State.REJECTED,
    (State.DECIDED, "EnrollmentApproved"): State.APPROVED,
    (State.DECIDED, "EnrollmentRejected"): State.REJECTED,
    (State.REQUESTED, "EnrollmentApproved"): State.APPROVED,
    (State.REQUESTED, "EnrollmentRejected"): State.REJECTED,
    (State.APPROVED, "CertificateOrdered"): State.APPROVED,
    (State.APPROVED, "CertificateIssued"): State.ISSUED,
    (State.APPROVED, "IssuanceFailed"): State.FAILED,
    (State.CONFIRMING, "CertificateConfirmed"): State.ISSUED,
    (State.CONFIRMING, "ConfirmationFailed"): State.FAILED,
}
REFUSAL: dict[str, Any] = {
    "request_sha256": REQUEST_SHA256,
    "reason": Reason.CHALLENGE_WRONG,
    "fail_info": FailInfo.BAD_REQUEST,
    "detail": "",
}
FAILURES = [EnrollmentRejected(**REFUSAL), IssuanceFailed(**REFUSAL)]
ISSUED = CertificateIssued(
    request_sha256=REQUEST_SHA256, issuer="local", serial="40", certificate=b"", not_after=NOW
)


@pytest.mark.parametrize("kind", sorted(EVENT_TYPES))
@pytest.mark.parametrize("state", State)
def test_an_event_takes_a_state_to_the_one_in_the_table_or_nowhere(state: State, kind: str) -> None:
    event = golden.EVENTS[kind, 1][1]
    expected = STEPS.get((state, kind))

    if expected is None:
        with pytest.raises(ValueError, match=f"{kind} cannot follow {state}"):
            evolve(state, event)
    else:
        assert evolve(state, event) is expected


def test_a_withheld_certificate_waits_for_its_confirmation() -> None:
    withheld = msgspec.structs.replace(ISSUED, withheld=True)

    assert evolve(State.APPROVED, withheld) is State.CONFIRMING
    with pytest.raises(ValueError, match="cannot follow"):
        evolve(State.REQUESTED, withheld)


def test_nothing_follows_a_terminal_state_and_something_follows_every_other() -> None:
    going_on = {state for state, _ in TRANSITIONS}

    assert going_on == set(State) - TERMINAL
    assert set(TRANSITIONS.values()) | {State.REQUESTED} == set(State)


def test_a_repeat_of_what_is_in_flight_waits() -> None:
    assert on_repeat(0, None, 1e9, NOW) == Wait()


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(("attempt", "delay"), [*enumerate(RETRY_DELAYS), (4, 3600), (99, 3600)])
def test_a_failure_is_the_answer_until_its_delay_is_over(
    failure: EnrollmentRejected | IssuanceFailed, attempt: int, delay: int
) -> None:
    assert on_repeat(attempt, failure, 0, NOW) == Answer(failure)
    assert on_repeat(attempt, failure, delay - 0.001, NOW) == Answer(failure)
    assert on_repeat(attempt, failure, delay, NOW) == NextAttempt(attempt + 1)


def test_a_failure_is_tried_anew_ever_more_rarely() -> None:
    assert RETRY_DELAYS == (30, 120, 600, 3600)


def test_a_failure_stored_in_the_future_of_this_clock_is_the_answer() -> None:
    assert on_repeat(0, FAILURES[0], -5, NOW) == Answer(FAILURES[0])


@pytest.mark.parametrize("age", [0, 10**9])
def test_a_certificate_is_the_answer_for_as_long_as_it_lives(age: float) -> None:
    assert on_repeat(0, ISSUED, age, NOW - 1) == Answer(ISSUED)


@pytest.mark.parametrize("now", [NOW, NOW + 1])
def test_after_a_certificate_has_ended_the_request_is_tried_anew(now: float) -> None:
    assert on_repeat(3, ISSUED, 0, now) == NextAttempt(4)
