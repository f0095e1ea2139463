"""An enrollment's events as steps, and the time between them as a bar of who spent it."""

import json
import sys
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.audit.web.timeline import Step, spans, steps
from shared.log.envelope import encode
from shared.log.subjects import key_issued
from tests.support import golden

WIDTH: Final = 720
TENTH: Final = 0.1
HOUR: Final = 3600 * 1_000_000_000
EVER: Final = 2**63 - 1
ENDS: Final = ("EnrollmentRejected", "CertificateIssued", "IssuanceFailed")
OPEN: Final = (
    "EnrollmentHeld", "HoldDecided", "EnrollmentApproved", "CertificateRecorded", "Unknown",
)  # fmt: skip
CIPHERTEXT: Final = ("pki_message", "content_key")
SHOWN: Final = st.text(min_size=1).filter(lambda name: name not in CIPHERTEXT)
TYPES: Final = st.sampled_from((*OPEN, *ENDS)) | st.text(max_size=64)


def event(
    at: int,
    kind: str = "EnrollmentRequested",
    payload: bytes | None = b"{}",
    subject: str = "enroll.0.corp.t.c.0.request",
) -> dict[str, Any]:
    """A row of the read model, as far as the timeline reads it."""
    return {
        "recorded_at": at,
        "type": kind,
        "stream": "ENROLL_0",
        "sequence": 42,
        "subject": subject,
        "payload": payload,
    }


def times(most: int = HOUR) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, most), min_size=1, max_size=12)


def story(moments: list[int], kinds: list[str]) -> tuple[Step, ...]:
    """Steps of a request and of events of these kinds at these times."""
    named = ["EnrollmentRequested", *kinds]
    return steps([event(at, kind) for at, kind in zip(moments, named, strict=False)])


# Steps


def details(payload: bytes) -> tuple[tuple[str, str], ...]:
    (found,) = steps([event(1, payload=payload)])
    return found.details


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
DEEP: Final = 100_000


def test_details_that_the_database_does_not_have_are_not_told_as_none() -> None:
    (found,) = steps([event(1, payload=None)])

    assert found.details is None


@given(payload=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"null")
@example(b'"text"')
@example(b"\xff\xfe")
@example(b"{}" + b"\x00" * 6)
@example(b'{"a": NaN, "a": 1e999}')
@example(b'{"a": ' + b"9" * 10_000 + b"}")
@example(b"[" * DEEP)
@example(b'{"a":' * DEEP)
@example(b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}")
def test_any_bytes_as_a_payload_make_a_step_whose_details_are_text(payload: bytes) -> None:
    for name, value in details(payload):
        assert isinstance(name, str)
        assert isinstance(value, str)


def test_a_payload_is_told_or_left_out_however_deep_it_is() -> None:
    """What can just be read may be too deep to be written again."""
    told = [
        len(details(b'{"a":' + b"[" * depth + b"]" * depth + b"}"))
        for depth in range(sys.getrecursionlimit())
    ]

    assert set(told) == {0, 1}


@pytest.mark.parametrize(
    "payload", [rb'{"a": "\ud800"}', rb'{"\udfff": 1}', rb'{"a": {"\ud800": "\udc00"}}']
)
def test_details_are_text_that_can_be_sent(payload: bytes) -> None:
    """JSON may hold half a character, which no page can be written with."""
    for pair in details(payload):
        assert "".join(pair).encode()


@given(value=st.dictionaries(SHOWN, st.text(max_size=160), max_size=6))
def test_short_texts_are_told_whole_and_in_order(value: dict[str, str]) -> None:
    assert details(json.dumps(value).encode()) == tuple(value.items())


@given(text=st.text(min_size=161, max_size=2000))
def test_long_texts_are_cut_and_say_how_long_they_are(text: str) -> None:
    ((_, told),) = details(json.dumps({"certificate": text}).encode())

    assert told == f"{text[:160]}... ({len(text)} characters)"


def test_members_of_members_are_told_one_by_one() -> None:
    gates = [{"gate": "key"}, {"gate": "sans", "passed": True, "detail": "dns:a"}, 7]
    payload = {"facts": {"subject": "CN=x", "sans": ["a", "b"]}, "gates": gates, "n": 1}

    assert details(json.dumps(payload).encode()) == (
        ("facts.subject", "CN=x"),
        ("facts.sans", "a, b"),
        ("gate key", "refused"),
        ("gate sans", "passed: dns:a"),
        ("n", "1"),
    )


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in golden.EVENTS}))
def test_every_type_of_event_makes_a_step_with_its_place_and_details(kind: str) -> None:
    (_, message) = golden.EVENTS[kind, 1]
    payload = encode(message).payload
    (found,) = steps([event(7, kind, payload)])

    assert (found.type, found.at, found.after, found.place) == (kind, 7, None, "ENROLL_0 #42")
    told = {name.partition(".")[0] for name, _ in found.details if not name.startswith("gate ")}
    assert told <= json.loads(payload).keys() - {"pki_message", "content_key"}
    assert found.details


@given(kind=st.text(max_size=64))
def test_a_type_that_nobody_knows_is_called_as_it_is(kind: str) -> None:
    (found,) = steps([event(1, f"x{kind}")])

    assert (found.title, found.service) == (f"x{kind}", "log")


@given(moments=times(EVER))
def test_each_step_comes_its_time_after_the_one_before_and_never_earlier(
    moments: list[int],
) -> None:
    """Streams have clocks of their own: a later event may bear an earlier time."""
    found = story(moments, ["EnrollmentApproved"] * len(moments))

    assert [step.at for step in found] == moments
    assert found[0].after is None
    told = [step.after for step in found[1:]]
    assert told == [max(0, later - earlier) for earlier, later in pairwise(moments)]


def test_the_index_by_key_tells_nothing_and_takes_no_time() -> None:
    """It repeats what another event has said, for lookups alone."""
    index = event(4, "CertificateRecorded", subject=key_issued("aa" * 32, "local", "bb"))
    found = steps([event(1), index, event(9, "CertificateIssued")])

    assert [(step.at, step.after) for step in found] == [(1, None), (9, 8)]


def test_no_events_make_no_steps_and_no_spans() -> None:
    assert steps([]) == ()
    assert spans(()) == ()


# Spans


@given(moments=times(EVER), kinds=st.lists(TYPES, min_size=12, max_size=12))
def test_spans_fill_the_width_one_after_another_in_order(
    moments: list[int], kinds: list[str]
) -> None:
    found = spans(story(moments, kinds))
    if not found:
        return
    assert found[0].x == 0
    for one, other in pairwise(found):
        assert other.x == pytest.approx(one.x + one.width, abs=2 * TENTH)
        assert one.service != other.service
    assert found[-1].x + found[-1].width == pytest.approx(WIDTH, abs=2 * TENTH)
    assert all(0 < span.width <= WIDTH for span in found)


@given(moments=times(), kinds=st.lists(st.sampled_from(OPEN), min_size=12, max_size=12))
def test_spans_sum_to_the_time_from_the_request_to_the_last_event(
    moments: list[int], kinds: list[str]
) -> None:
    moments = sorted(moments)
    found = spans(story(moments, kinds))

    assert sum(span.spent for span in found) == moments[-1] - moments[0]


@given(
    moments=times(),
    before=st.lists(st.sampled_from(OPEN), max_size=5),
    end=st.sampled_from(ENDS),
)
def test_what_comes_after_the_end_is_nobodys_time(
    moments: list[int], before: list[str], end: str
) -> None:
    moments = sorted(moments)
    after = ["CertificateRecorded", "RevocationOrdered", "CertificateStatusChanged"] * 4
    told = story(moments, [*before, end, *after])
    last = moments[min(len(moments) - 1, len(before) + 1)]

    assert sum(span.spent for span in spans(told)) == last - moments[0]


@given(moments=times(), kinds=st.lists(TYPES, min_size=12, max_size=12))
def test_times_out_of_order_take_nothing_from_anybody(moments: list[int], kinds: list[str]) -> None:
    told = story(moments, kinds)
    found = spans(told)

    assert all(span.spent >= 0 for span in found)
    assert sum(span.spent for span in found) <= sum(step.after or 0 for step in told)


@given(scale=st.integers(1, HOUR))
def test_who_spent_longer_has_the_wider_part(scale: int) -> None:
    found = spans(story([0, scale, 4 * scale], ["EnrollmentApproved", "CertificateIssued"]))

    assert [(span.service, span.spent) for span in found] == [
        ("validator", scale),
        ("issuer", 3 * scale),
    ]
    assert found[1].width > 2 * found[0].width


def test_stretches_of_one_service_that_follow_each_other_are_one() -> None:
    found = spans(story([0, 5, 9, 20], ["EnrollmentHeld", "EnrollmentApproved", "HoldDecided"]))

    assert [(span.service, span.spent) for span in found] == [("validator", 9), ("operator", 11)]


def test_events_of_one_moment_are_no_time_and_no_spans() -> None:
    assert spans(story([3, 3, 3], ["EnrollmentApproved", "CertificateIssued"])) == ()


def test_what_took_next_to_nothing_is_still_to_be_seen() -> None:
    found = spans(story([0, 1, HOUR], ["EnrollmentApproved", "CertificateIssued"]))

    assert found[0].width >= 6
