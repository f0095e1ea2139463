"""Gate 1: which verifier judges, by the shape of the challenge."""

import itertools
from collections.abc import Collection
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.validator.challenges.registry import VERIFIERS
from services.validator.challenges.signed import SIGNED
from services.validator.challenges.static import STATIC
from services.validator.challenges.verifier import NONE, passed, refused, route
from services.validator.challenges.webhook import WEBHOOK
from shared.config.challenge_format import looks_signed
from shared.limits import DETAIL_CHARACTERS
from shared.log.one_time import ONE_TIME
from shared.log.reasons import Reason
from tests.support.signed_challenges import claims, mint, p256, rsa_key

KINDS: Final = (STATIC, SIGNED, ONE_TIME, WEBHOOK)
PASSWORD: Final = "s3cret"
TOKEN: Final = f"{'a' * 100}.{'b' * 100}.c"
ONE_TIME_CHALLENGE: Final = "OT-01234-56789-ABCDE-FGHJK-MNPQR"


def routed(challenge: str, kinds: Collection[str]) -> str:
    """Which of these kinds handles a challenge."""
    return route(challenge, [each for each in VERIFIERS if each.kind in kinds])


def long(size: int, dots: int = 2) -> str:
    """A challenge of that many bytes and dots."""
    return "." * dots + "x" * (size - dots)


@pytest.mark.parametrize(
    ("challenge", "expected"),
    [
        (long(199), False),
        (long(200), False),
        (long(201), True),
        (long(202), True),
        (long(30_000), True),
        (long(201, 0), False),
        (long(201, 1), False),
        (long(201, 3), False),
        (long(30_000, 1), False),
        (long(30_000, 3), False),
        ("x" * 199 + "..", True),
        ("x" * 100 + ".." + "x" * 99, True),
        ("x" * 100 + ".." + "x" * 98, False),
        ("." + "x" * 199 + ".", True),
        (" " * 199 + "..", True),
        ("\u00e9" * 99 + "..", False),
        ("\u00e9" * 99 + "x..", True),
        ("\u9375" * 66 + "..", False),
        ("\u9375" * 66 + "x..", True),
        ("\U0001f600" * 49 + "xx..", False),
        ("\U0001f600" * 49 + "xxx..", True),
        ("x" * 199 + ".\u3002", False),
        ("x" * 199 + ".\uff0e", False),
        ("x" * 199 + "\u2025", False),
        ("", False),
        ("..", False),
        ("a.b.c", False),
    ],
    ids=lambda value: ascii(value)[-12:],
)
def test_a_token_is_longer_than_200_bytes_and_has_two_dots(
    challenge: str,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Bytes of UTF-8, whatever the string type in the request."""
    assert looks_signed(challenge) is expected
    assert routed(challenge, {STATIC, SIGNED}) == (SIGNED if expected else STATIC)


def test_real_tokens_look_like_tokens() -> None:
    assert looks_signed(mint(claims(), rsa_key()))
    assert looks_signed(mint(claims(), p256()))


@pytest.mark.parametrize(
    ("kinds", "password", "token", "one_time"),
    [
        ((STATIC,), STATIC, STATIC, STATIC),
        ((SIGNED,), SIGNED, SIGNED, SIGNED),
        ((ONE_TIME,), ONE_TIME, ONE_TIME, ONE_TIME),
        ((WEBHOOK,), WEBHOOK, WEBHOOK, WEBHOOK),
        ((STATIC, SIGNED), STATIC, SIGNED, STATIC),
        ((STATIC, ONE_TIME), STATIC, STATIC, ONE_TIME),
        ((SIGNED, ONE_TIME), SIGNED, SIGNED, ONE_TIME),
        ((SIGNED, WEBHOOK), WEBHOOK, SIGNED, WEBHOOK),
        ((ONE_TIME, WEBHOOK), WEBHOOK, WEBHOOK, ONE_TIME),
        ((STATIC, SIGNED, ONE_TIME), STATIC, SIGNED, ONE_TIME),
        ((SIGNED, ONE_TIME, WEBHOOK), WEBHOOK, SIGNED, ONE_TIME),
    ],
)
def test_the_shape_decides_where_there_is_a_choice(
    kinds: tuple[str, ...], password: str, token: str, one_time: str
) -> None:
    """In whatever order the kinds are listed; one verifier alone judges everything."""
    for order in itertools.permutations(kinds):
        assert routed(PASSWORD, order) == password
        assert routed(TOKEN, order) == token
        assert routed(ONE_TIME_CHALLENGE, order) == one_time


@pytest.mark.parametrize("challenge", ["", " ", PASSWORD, TOKEN, ONE_TIME_CHALLENGE, "\ud800"])
def test_a_profile_without_verifiers_has_none_for_any_challenge(challenge: str) -> None:
    assert routed(challenge, ()) == NONE


@pytest.mark.parametrize(
    "challenge",
    [ONE_TIME_CHALLENGE.lower(), f" {ONE_TIME_CHALLENGE}", f"{ONE_TIME_CHALLENGE}\n", "OT-", "OT"],
)
def test_nearly_a_one_time_challenge_is_a_password(challenge: str) -> None:
    assert routed(challenge, {STATIC, ONE_TIME, SIGNED}) == STATIC


@given(st.text(st.characters(codec=None, exclude_categories=())), st.sets(st.sampled_from(KINDS)))
def test_any_challenge_has_one_verifier_of_those_there_are(challenge: str, kinds: set[str]) -> None:
    assert routed(challenge, kinds) in (kinds or {NONE})


# Answers


def test_a_refusal_holds_its_sentence_and_what_was_compared() -> None:
    found = refused("time", Reason.EXPIRED, "too late", "a, b")

    assert found.refusal is not None
    assert (found.refusal.reason, found.refusal.detail) == (Reason.EXPIRED, "too late")
    assert [(gate.gate, gate.passed, gate.detail) for gate in found.gates] == [
        ("time", False, "too late (a, b)")
    ]
    assert found.claim is None


@pytest.mark.parametrize("size", [0, DETAIL_CHARACTERS - 1, DETAIL_CHARACTERS])
def test_what_is_not_long_is_recorded_whole(size: int) -> None:
    assert passed("time", "x" * size).detail == "x" * size


@pytest.mark.parametrize("size", [DETAIL_CHARACTERS + 1, 30_000])
def test_what_is_long_is_recorded_in_part(size: int) -> None:
    assert passed("time", "x" * size).detail == "x" * (DETAIL_CHARACTERS - 3) + "..."
    (gate,) = refused("time", Reason.EXPIRED, "late", "x" * size).gates
    assert len(gate.detail) == DETAIL_CHARACTERS
