"""`static`: passwords as configured, and as requests bring them."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.validator.challenges.password import check_password
from services.validator.challenges.static import StaticVerifier
from services.validator.challenges.verifier import ChallengeResult
from shared.log.events.enrollment import GateResult
from shared.log.reasons import Reason
from tests.support.messages import BMP, IA5, PRINTABLE, T61, UNIVERSAL, UTF8
from tests.support.signed_challenges import asked, claims, mint, request

SECRET: Final = "s3cret"
ANY_TEXT: Final = st.text(st.characters(codec=None, exclude_categories=()))


def opens(verified: ChallengeResult) -> bool:
    """Whether the one gate opened; a refusal says that the password is wrong, and no more."""
    if verified.refusal is None:
        assert verified.gates == (GateResult(gate="challenge", passed=True),)
        return True
    assert verified.refusal.reason is Reason.CHALLENGE_WRONG
    (gate,) = verified.gates
    assert (gate.gate, gate.passed) == ("challenge", False)
    assert gate.detail == verified.refusal.detail == "the challenge password is wrong"
    return False


async def ask(password: bytes | None, *passwords: str, tag: int = UTF8) -> bool:
    """Whether a request with this challengePassword is let in."""
    return opens(await StaticVerifier(passwords).verify(asked(request(password=password, tag=tag))))


@pytest.mark.parametrize(
    "password", [b"S3cret", b"s3cret ", b" s3cret", b"s3cre", b"s3crett", b"s3cret\0", b"\xff\xfe"]
)
async def test_a_wrong_password_is_refused_and_not_repeated(password: bytes) -> None:
    found = await StaticVerifier((SECRET,)).verify(asked(request(password=password)))

    assert not opens(found)
    assert "s3c" not in repr(found).lower()


@pytest.mark.parametrize("password", [None, b"", b" ", b"\t\r\n "])
@pytest.mark.parametrize("passwords", [(SECRET,), (), ("",), ("", SECRET), (" ", "\t\r\n ")])
async def test_no_password_is_no_valid_one_whatever_is_configured(
    password: bytes | None, passwords: tuple[str, ...]
) -> None:
    assert not await ask(password, *passwords)


@pytest.mark.parametrize("value", ["first", "second", "third"])
async def test_any_of_several_valid_passwords_opens_the_gate(value: str) -> None:
    assert await ask(value.encode(), "first", "second", "third")


@pytest.mark.parametrize("value", ["firstsecond", "first second", "first,second", "fir", "secon"])
async def test_parts_of_several_passwords_open_nothing(value: str) -> None:
    assert not await ask(value.encode(), "first", "second")


@pytest.mark.parametrize(
    ("tag", "codec"), [(UTF8, "utf-8"), (BMP, "utf-16-be"), (UNIVERSAL, "utf-32-be")]
)
async def test_a_password_beyond_ascii_is_compared_as_text(tag: int, codec: str) -> None:
    right, wrong = "schl\u00fcssel-\u9375", "schlussel-\u9375"

    assert await ask(right.encode(codec), right, tag=tag)
    assert not await ask(wrong.encode(codec), right, tag=tag)


@pytest.mark.parametrize("tag", [UTF8, PRINTABLE, IA5, T61])
async def test_a_password_in_ascii_may_come_in_any_string_type(tag: int) -> None:
    assert await ask(b"s3cret", SECRET, tag=tag)
    assert not await ask(b"s3creT", SECRET, tag=tag)


async def test_bytes_in_the_wrong_string_type_are_another_password() -> None:
    assert not await ask(SECRET.encode("utf-16-be"), SECRET, tag=UTF8)
    assert not await ask(SECRET.encode(), SECRET, tag=BMP)


@pytest.mark.parametrize("password", [b"s3cret", b"", None, b"x"])
async def test_a_profile_without_passwords_lets_nobody_in(password: bytes | None) -> None:
    assert not await ask(password)


@pytest.mark.parametrize(
    ("given_password", "configured", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "aa", False),
        ("aa", "a", False),
        ("", "", False),
        ("", "a", False),
        ("\u00e9", "\u00e9", True),
        ("e\u0301", "\u00e9", False),
        ("\u212a", "K", False),
        ("\uff41", "a", False),
        ("a\0", "a", False),
        ("a\0b", "a", False),
        ("\ufffd", "\ufffd", True),
        ("\ud800", "\ufffd", False),
        ("\ud800", "?", False),
        ("x" * 30_000, "x" * 30_000, True),
        ("x" * 30_000, "x" * 29_999, False),
        (mint(claims()), SECRET, False),
    ],
    ids=lambda value: ascii(value)[:14],
)
def test_passwords_are_equal_to_the_letter(
    given_password: str,
    configured: str,
    expected: bool,  # noqa: FBT001 - a column of the table
) -> None:
    for passwords in ((configured,), ("other", configured), (configured, "other", configured)):
        assert opens(check_password(given_password, passwords)) is expected


@given(ANY_TEXT, st.lists(st.text(), max_size=4))
def test_any_text_is_judged(given_password: str, passwords: list[str]) -> None:
    expected = given_password != "" and given_password in passwords

    assert opens(check_password(given_password, passwords)) is expected
