"""One-time challenges: how they look, and what the log knows them by."""

import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.challenge_format import looks_signed
from shared.log.one_time import (
    ALPHABET,
    GROUP_LENGTH,
    GROUPS,
    ONE_TIME_SHAPE,
    one_time_digest,
    write_one_time,
)

PRINTABLE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")
GOOD = "OT-01234-56789-ABCDE-FGHJK-MNPQR"


def test_the_alphabet_has_32_letters_that_nobody_takes_for_others() -> None:
    assert len(ALPHABET) == len(set(ALPHABET)) == 32
    assert set(ALPHABET) < PRINTABLE
    assert ALPHABET.upper() == ALPHABET
    assert not set(ALPHABET) & set("ILOU")


def test_25_letters_are_125_bits() -> None:
    assert len(ALPHABET) ** (GROUPS * GROUP_LENGTH) == 2**125


@given(st.text(ALPHABET, min_size=25, max_size=25))
def test_a_challenge_is_known_by_its_form(letters: str) -> None:
    written = write_one_time(letters)

    assert ONE_TIME_SHAPE.fullmatch(written)
    assert written.replace("-", "") == f"OT{letters}"
    assert [len(group) for group in written.split("-")] == [2, 5, 5, 5, 5, 5]
    assert set(written) <= PRINTABLE
    assert not looks_signed(written)


def test_letters_stand_in_their_order() -> None:
    assert write_one_time("0123456789ABCDEFGHJKMNPQR") == GOOD


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "OT",
        "OT-",
        GOOD.lower(),
        GOOD[:-1],
        f"{GOOD}0",
        f"{GOOD}-",
        f"{GOOD}-01234",
        f"{GOOD}\n",
        f"{GOOD} ",
        f" {GOOD}",
        f"{GOOD}\0",
        GOOD.removeprefix("OT-"),
        GOOD.replace("OT", "0T"),
        GOOD.replace("OT", "Ot"),
        GOOD.replace("-", ""),
        GOOD.replace("-", " "),
        GOOD.replace("-", "\u2010"),
        GOOD.removesuffix("-MNPQR"),
        GOOD.replace("R", "-"),
        *(GOOD.replace("E", letter) for letter in "ILOUilou"),
        *(GOOD.replace("E", letter) for letter in ("e", "\uff25", "\u0415", "\u0660", ".", "_")),
        *(GOOD.replace("0", letter) for letter in ("\u0660", "\uff10", "\u00b2")),
        GOOD + GOOD,
        f"{GOOD}\n{GOOD}",
    ],
    ids=ascii,
)
def test_nearly_the_form_is_not_the_form(challenge: str) -> None:
    assert not ONE_TIME_SHAPE.fullmatch(challenge)


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def test_the_digest_is_of_profile_and_challenge_each_with_its_length() -> None:
    digest = hashlib.sha256(framed(b"one-time", b"demo", GOOD.encode())).digest()

    assert one_time_digest("demo", GOOD) == base64.b32encode(digest).decode()[:26].lower()


def test_a_challenge_of_one_profile_is_none_of_another() -> None:
    assert one_time_digest("a", GOOD) != one_time_digest("b", GOOD)
    assert one_time_digest("ab", "c") != one_time_digest("a", "bc")
    assert one_time_digest("", "abc") != one_time_digest("abc", "")


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_challenge_has_a_digest_that_subjects_may_hold_and_that_tells_nothing(
    challenge: str,
) -> None:
    """So a guess that is no challenge at all is looked up like any other."""
    digest = one_time_digest("demo", challenge)

    assert re.fullmatch("[a-z2-7]{26}", digest)
    assert len(challenge) < 4 or challenge not in digest
    assert digest != one_time_digest("demo", f"{challenge} ")
