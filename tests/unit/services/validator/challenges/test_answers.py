"""Answers of webhooks: what opens the gate, and what is recorded of a no."""

import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.validator.challenges.answers import WITHHELD, check_answer
from services.validator.challenges.verifier import ChallengeResult
from shared.log.reasons import Reason
from shared.text.printable import HIDDEN

BOM = b"\xef\xbb\xbf"


def said(found: ChallengeResult) -> str:
    """What the record says of a refusal; the device hears one sentence alone."""
    assert found.refusal is not None
    assert found.refusal.reason is Reason.WEBHOOK_DENIED
    assert found.refusal.detail == "denied by the webhook"
    return found.gates[0].detail


@pytest.mark.parametrize("content", [b'{"allow": true}', BOM + b'{"allow": true}'])
def test_a_yes_may_begin_with_a_byte_order_mark(content: bytes) -> None:
    assert check_answer(200, content).refusal is None
    assert check_answer(201, content).refusal is not None
    assert check_answer(200, BOM + content[:-1]).refusal is not None


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (200, b'{"allow": false}', "denied by the webhook"),
        (200, b'{"allow": false, "reason": "not in the inventory"}', "not in the inventory"),
        (403, b'{"title": "Forbidden", "detail": "stolen"}', "HTTP 403: stolen"),
        (401, b'{"error": "invalid_token"}', "HTTP 401: invalid_token"),
        (502, b"", "HTTP 502"),
        (400, b'{"error": "\\u001b[2J\\ufffd"}', "HTTP 400: \\x1b[2J\ufffd"),
        (200, b"yes", "the answer is not JSON"),
    ],
)
def test_a_no_is_recorded_in_its_own_words(status: int, content: bytes, told: str) -> None:
    assert told in said(check_answer(status, content))


@pytest.mark.parametrize(
    "content",
    [b"<h1>Boom</h1>", b"Boom", b'["Boom"]', b'"Boom"', b'{"a": "Boom"}', b'{"error": ["Boom"]}'],
)
@pytest.mark.parametrize("status", [200, 403, 500])
def test_no_body_of_another_form_is_recorded(status: int, content: bytes) -> None:
    assert "Boom" not in said(check_answer(status, content))


def test_words_without_end_are_cut() -> None:
    content = json.dumps({"error": "x" * 60_000}).encode()
    assert 200 < len(said(check_answer(403, content))) < 300


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=4),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from([200, 403]),
)
def test_no_secret_comes_back_into_the_record(secret: str, around: str, status: int) -> None:
    spoken = f"{around}|{secret}|{around}"
    for content in (
        json.dumps({"allow": False, "reason": spoken}).encode(),
        json.dumps([spoken]).encode(),
        json.dumps([spoken], ensure_ascii=False).encode("utf-8", "replace"),
        spoken.encode("utf-8", "replace"),
    ):
        detail = said(check_answer(status, content, (secret,)))
        assert HIDDEN.search(detail) is None
        assert f"|{secret}|" not in detail


CHALLENGE = "p+ss/w\"or'd<&>-of-the-device"


@pytest.mark.parametrize("status", [200, 401])
@pytest.mark.parametrize(
    "spoken",
    [
        html.escape(CHALLENGE),
        CHALLENGE.replace("+", "\\u002b"),
        quote(CHALLENGE, safe="/'<>"),
        quote(CHALLENGE, safe="").lower(),
        CHALLENGE[:12],
        html.escape(CHALLENGE)[:20],
        "x" * 185 + CHALLENGE,
    ],
)
@pytest.mark.parametrize("field", ["reason", "detail", "message", "error", "title"])
def test_a_sentence_that_repeats_the_challenge_is_withheld(
    field: str, spoken: str, status: int
) -> None:
    content = json.dumps({field: f"wrong: {spoken}"}).encode()
    detail = said(check_answer(status, content, (CHALLENGE, "", "another-secret")))

    assert WITHHELD in detail
    assert "wrong" not in detail
