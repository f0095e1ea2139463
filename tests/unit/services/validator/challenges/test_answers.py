"""Answers of webhooks: what opens the gate, and what is recorded of a no."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.validator.challenges.answers import judge_answer
from services.validator.challenges.verifier import Verified
from shared.printable import HIDDEN
from shared.reasons import Reason

BOM = b"\xef\xbb\xbf"


def said(found: Verified) -> str:
    """What the record says of a refusal; the device hears one sentence alone."""
    assert found.refusal is not None
    assert found.refusal.reason is Reason.WEBHOOK_DENIED
    assert found.refusal.detail == "the webhook does not allow it"
    return found.gates[0].detail


@pytest.mark.parametrize("content", [b'{"allow": true}', BOM + b'{"allow": true}'])
def test_a_yes_may_begin_with_a_byte_order_mark(content: bytes) -> None:
    assert judge_answer(200, content).refusal is None
    assert judge_answer(201, content).refusal is not None
    assert judge_answer(200, BOM + content[:-1]).refusal is not None


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (200, b'{"allow": false}', "the webhook does not allow it"),
        (200, b'{"allow": false, "reason": "not in the inventory"}', "not in the inventory"),
        (403, b'{"title": "Forbidden", "detail": "stolen"}', "HTTP 403: stolen"),
        (401, b'{"error": "invalid_token"}', "HTTP 401: invalid_token"),
        (500, b"<h1>Boom</h1>", "HTTP 500: <h1>Boom</h1>"),
        (502, b"", "HTTP 502"),
        (400, b"\x1b[2J\xff", "HTTP 400: \\x1b[2J\ufffd"),
        (200, b"yes", "the answer is not JSON"),
    ],
)
def test_a_no_is_recorded_in_its_own_words(status: int, content: bytes, told: str) -> None:
    assert told in said(judge_answer(status, content))


def test_words_without_end_are_cut() -> None:
    assert len(said(judge_answer(403, b"x" * 60_000))) < 300


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*"), min_size=4),
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
        detail = said(judge_answer(status, content, (secret,)))
        assert HIDDEN.search(detail) is None
        assert f"|{secret}|" not in detail
