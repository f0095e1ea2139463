"""Gate 7: whose challenge it is, and for how long that is remembered."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.validator.challenges.replay import MARGIN_SECONDS, check_replay, time_to_keep
from services.validator.challenges.verifier import ChallengeRequest
from shared.log.events.state import ChallengeClaimed
from shared.log.reasons import Reason
from shared.log.subjects import EnrollmentId
from tests.support.signed_challenges import asked, enrollment
from tests.support.world import NANOSECONDS, NOW, SERIAL

MINE: Final = "ab" * 32
OTHERS: Final = "cd" * 32
UNTIL: Final = NOW + 3660
CENTURY: Final = 100 * 365 * 86400


def record(holder: EnrollmentId | None = None, key: str = MINE, **changes: Any) -> ChallengeClaimed:
    """The record of who came first."""
    values: dict[str, Any] = {
        "request_sha256": "00" * 32,
        "kind": "signed",
        "enrollment": (holder or enrollment()).prefix(),
        "spki_sha256": key,
        "expires_at": UNTIL,
    }
    return ChallengeClaimed(**(values | changes))


def mine(where: EnrollmentId | None = None, existing: str = "") -> ChallengeRequest:
    return asked(where=where, key=MINE, existing=existing)


def evaluator(
    who: ChallengeRequest, found: ChallengeClaimed, first_used_at: int = NOW, until: int = UNTIL
) -> Reason | None:
    """Why the enrollment does not hold the challenge, if it does not."""
    verified = check_replay(who, found, first_used_at * NANOSECONDS, until)
    (gate,) = verified.gates
    assert gate.gate == "replay"
    assert gate.passed == (verified.refusal is None)
    if verified.refusal is None:
        return None
    assert gate.detail == verified.refusal.detail
    return verified.refusal.reason


# Who


@pytest.mark.parametrize("attempt", [0, 1, 7])
@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("existing", ["", SERIAL])
def test_the_same_request_again_is_a_retry(first: int, attempt: int, existing: str) -> None:
    """Redelivered, or another attempt of the same enrollment."""
    holder, again = enrollment(attempt=first), enrollment(attempt=attempt)

    assert evaluator(mine(again, existing), record(holder)) is None


def test_a_retry_is_one_whatever_request_the_record_was_made_for() -> None:
    assert evaluator(mine(), record(request_sha256="ff" * 32, expires_at=1)) is None


DIFFERENT: Final = {
    "transaction and CSR": enrollment("two"),
    "transaction": enrollment(transaction="two-t"),
    "CSR": enrollment(csr="two-c"),
    "profile": enrollment(profile="other"),
    "CSR and attempt": enrollment(csr="two-c", attempt=1),
}


@pytest.mark.parametrize("holder", DIFFERENT)
@pytest.mark.parametrize("existing", ["", SERIAL])
def test_another_key_is_a_replay(holder: str, existing: str) -> None:
    """A certificate of one's own makes no difference."""
    found = record(DIFFERENT[holder], OTHERS)

    assert evaluator(mine(existing=existing), found) is Reason.REPLAY
    assert "another key" in check_replay(mine(), found, NOW * NANOSECONDS, UNTIL).gates[0].detail


@pytest.mark.parametrize("holder", [name for name in DIFFERENT if name != "transaction"])
def test_another_request_of_the_same_key_is_a_replay(holder: str) -> None:
    found = record(DIFFERENT[holder])

    assert evaluator(mine(), found) is Reason.REPLAY
    assert "the same key" in check_replay(mine(), found, NOW * NANOSECONDS, UNTIL).gates[0].detail


def test_the_same_csr_of_the_same_key_is_a_retry_in_whatever_transaction() -> None:
    """What is held to be the same is the signer's key and the CSR's hash."""
    assert evaluator(mine(), record(DIFFERENT["transaction"])) is None


@pytest.mark.parametrize("holder", DIFFERENT)
def test_the_same_key_is_given_the_certificate_that_it_has(holder: str) -> None:
    assert evaluator(mine(existing=SERIAL), record(DIFFERENT[holder])) is None


def test_keys_are_compared_whole() -> None:
    almost = MINE[:-1] + "0"

    assert evaluator(mine(existing=SERIAL), record(enrollment("two"), almost)) is Reason.REPLAY


def test_a_replay_is_one_however_late() -> None:
    for first_used_at in (1, NOW, UNTIL + MARGIN_SECONDS + 1, UNTIL + 10**6):
        assert evaluator(mine(), record(enrollment("two"), OTHERS), first_used_at) is Reason.REPLAY


# When


@pytest.mark.parametrize("late", [-4000, -1 - MARGIN_SECONDS, -MARGIN_SECONDS, -1, 0])
def test_a_record_made_in_time_is_believed(late: int) -> None:
    assert evaluator(mine(), record(), UNTIL + late) is None
    assert evaluator(mine(), record(), UNTIL + MARGIN_SECONDS + late - 1) is None


@pytest.mark.parametrize("late", [1, 2, 600, 10**6])
def test_a_record_made_too_late_proves_nothing(late: int) -> None:
    """An earlier one, of another key, may have left the log by then."""
    assert evaluator(mine(), record(), UNTIL + MARGIN_SECONDS + late) is Reason.EXPIRED


@pytest.mark.parametrize("asked_at", [NOW, UNTIL - 1])
def test_no_record_is_believed_from_the_second_in_which_an_earlier_one_may_be_gone(
    asked_at: int,
) -> None:
    """The log tells times to the nanosecond, the gate in whole seconds.

    A record made within the second of its request leaves within this one.
    """
    gone = asked_at + time_to_keep(UNTIL, asked_at)

    assert evaluator(mine(), record(), gone - 1) is None
    assert evaluator(mine(), record(), gone) is Reason.EXPIRED


@pytest.mark.parametrize(
    ("until", "now", "expected"),
    [
        (NOW + 3660, NOW, 3660 + 600),
        (NOW + 1, NOW, 601),
        (NOW, NOW, 600),
        (NOW - 1, NOW, 600),
        (NOW - 600, NOW, 600),
        (NOW - 10**6, NOW, 600),
        (NOW + CENTURY - 601, NOW, CENTURY - 1),
        (NOW + CENTURY - 600, NOW, CENTURY),
        (NOW + CENTURY - 599, NOW, CENTURY),
        (253_402_300_799 + 60, NOW, CENTURY),
    ],
)
def test_a_record_is_kept_a_margin_longer_than_its_challenge(
    until: int, now: int, expected: int
) -> None:
    assert time_to_keep(until, now) == expected


@given(st.integers(1, NOW + CENTURY - MARGIN_SECONDS), st.integers(NOW, NOW + CENTURY))
def test_a_record_outlives_what_it_guards_and_is_never_gone_at_once(until: int, now: int) -> None:
    kept = time_to_keep(until, now)

    assert now + kept >= until + MARGIN_SECONDS
    assert MARGIN_SECONDS <= kept <= CENTURY


@given(st.integers(1, NOW * 2), st.integers(NOW, NOW * 2), st.integers(0, 10**6))
def test_a_record_made_later_leaves_no_earlier(until: int, now: int, later: int) -> None:
    assert now + time_to_keep(until, now) <= now + later + time_to_keep(until, now + later)


# What is told


@pytest.mark.parametrize("holder", [enrollment(), enrollment("two")])
@pytest.mark.parametrize("key", [MINE, OTHERS])
@pytest.mark.parametrize("first_used_at", [NOW, UNTIL + 10**6])
def test_nobody_is_told_who_was_first(holder: EnrollmentId, key: str, first_used_at: int) -> None:
    verified = check_replay(mine(), record(holder, key), first_used_at * NANOSECONDS, UNTIL)
    told = verified.gates[0].detail if verified.refusal else ""

    assert not [secret for secret in (OTHERS[:8], "two", "00" * 8) if secret in told]
