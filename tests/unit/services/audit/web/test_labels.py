"""The page's words: badges at their borders, times of the log, how long something took."""

import json
import re
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.audit.store.commands import Command, Result
from services.audit.web.labels import (
    CHIPS,
    Badge,
    action_name,
    certificate_badge,
    certificate_status,
    command_badge,
    command_name,
    day,
    enrollment_hint,
    expiry_badge,
    iso,
    lasting,
    moment,
    names_text,
    state_badge,
)
from shared.log.enrollment import State
from shared.log.events.commands import RevocationReason

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
EVER: Final = 2**63 - 1  # what a column holds: the year 2262
DAYS: Final = st.integers(-40_000, 4_000_000)

# What to do


@pytest.mark.parametrize(
    ("state", "reason", "challenge", "hint"),
    [
        ("confirming", None, "intune", "withheld"),
        ("failed", "not_confirmed", "intune", "did not accept the certificate"),
        ("rejected", "service_unavailable", "intune", "Microsoft could not be asked"),
        ("rejected", "service_unavailable", "webhook", ""),
        ("rejected", "claim_mismatch", "intune", "Compare names; one of + , ; = never matches."),
        ("rejected", "claim_mismatch", "signed", ""),
        ("issued", None, "static", ""),
        ("requested", None, None, ""),
    ],
)
def test_what_intune_decides_comes_with_what_to_do(
    state: str, reason: str | None, challenge: str | None, hint: str
) -> None:
    detail = (
        "Intune refused the request: SubjectNameMismatch (compare names; one of + , ; = never "
        "matches; SubjectNameMismatch, activity 0f7c)"
    )
    row = {"state": state, "reason": reason, "challenge": challenge}
    found = enrollment_hint(row, {"intune": detail} if reason == "claim_mismatch" else {})

    assert hint in found
    assert bool(hint) == bool(found)


@pytest.mark.parametrize("detail", ["", "no advice", "(", "(;)", "Intune (x)"])
def test_a_detail_without_advice_has_no_hint(detail: str) -> None:
    row = {"state": "rejected", "reason": "expired", "challenge": "intune"}

    assert enrollment_hint(row, {"intune": detail}) == ""


# Badges


@pytest.mark.parametrize(
    ("days", "text", "tone"),
    [
        (3650, "3650 days", "good"),
        (31, "31 days", "good"),
        (30, "30 days", "good"),
        (29, "29 days (rotate soon)", "warn"),
        (7, "7 days (rotate soon)", "warn"),
        (6, "6 days", "bad"),
        (1, "1 day", "bad"),
        (0, "0 days", "bad"),
    ],
)
def test_a_badge_of_a_living_certificate_changes_its_tone_at_thirty_and_at_seven_days(
    days: int, text: str, tone: str
) -> None:
    assert expiry_badge(days, expired=False) == Badge(text, tone)  # type: ignore[arg-type]


@given(days=DAYS)
def test_a_certificate_that_has_ended_is_never_counted_in_days(days: int) -> None:
    assert expiry_badge(days, expired=True) == Badge("EXPIRED", "bad")


@given(expired=st.none() | st.booleans())
def test_what_could_not_be_read_is_said_to_be_not_loaded(expired: bool | None) -> None:  # noqa: FBT001
    assert expiry_badge(None, expired=expired) == Badge("Not loaded", "bad")


@given(one=DAYS, other=DAYS)
def test_the_longer_a_certificate_lives_the_better_its_tone(one: int, other: int) -> None:
    order = ["bad", "warn", "good"]
    less, more = (expiry_badge(days, expired=False).tone for days in sorted((one, other)))

    assert order.index(less) <= order.index(more)


@pytest.mark.parametrize(
    ("state", "tone"),
    [
        (State.HELD, "warn"), (State.ISSUED, "good"), (State.REJECTED, "bad"),
        (State.FAILED, "bad"), (State.REQUESTED, "none"), (State.APPROVED, "none"),
        (State.DECIDED, "none"),
    ],
)  # fmt: skip
def test_a_state_has_its_tone(state: State, tone: str) -> None:
    assert state_badge(state) == Badge(state.value, tone)  # type: ignore[arg-type]


@given(state=st.text())
def test_any_word_for_a_state_is_shown_as_it_is(state: str) -> None:
    assert state_badge(state).text == state


# Names


@pytest.mark.parametrize("action", sorted({each for chip in CHIPS.values() for each in chip}))
def test_every_action_that_a_chip_filters_by_has_a_name_for_people(action: str) -> None:
    assert action_name(action) not in ("", action)


def test_names_of_actions_tell_renewals_and_intune_apart() -> None:
    for chip, word in (("initial", "Initial"), ("renewal", "Renewal")):
        assert {action_name(each).split(",")[0] for each in CHIPS[chip]} == {word}
    assert all("Intune" in action_name(each) for each in CHIPS["intune"])
    assert not any("Intune" in action_name(each) for each in CHIPS["static"])


@given(action=st.text().filter(lambda text: not text.startswith("scep_")))
def test_an_action_that_nobody_knows_is_told_by_its_own_name(action: str) -> None:
    assert action_name(action) == action


def test_an_action_that_is_not_known_yet_is_no_word() -> None:
    assert action_name(None) == ""


@given(sans=st.lists(st.text()))
def test_other_names_stand_in_one_line_in_their_order(sans: list[str]) -> None:
    assert names_text(json.dumps(sans)) == ", ".join(sans)


@pytest.mark.parametrize("sans", [None, "", "[]"])
def test_no_other_names_are_no_text(sans: str | None) -> None:
    assert names_text(sans) == ""


# Times


@pytest.mark.parametrize(
    ("nanoseconds", "said", "exactly"),
    [
        (0, "1970-01-01 00:00:00", "1970-01-01T00:00:00.000Z"),
        (999_999, "1970-01-01 00:00:00", "1970-01-01T00:00:00.000Z"),
        (1_000_000, "1970-01-01 00:00:00", "1970-01-01T00:00:00.001Z"),
        (SECOND - 1, "1970-01-01 00:00:00", "1970-01-01T00:00:00.999Z"),
        (SECOND, "1970-01-01 00:00:01", "1970-01-01T00:00:01.000Z"),
        (1_767_225_600 * SECOND - 1, "2025-12-31 23:59:59", "2025-12-31T23:59:59.999Z"),
        (1_767_225_600 * SECOND, "2026-01-01 00:00:00", "2026-01-01T00:00:00.000Z"),
        (EVER, "2262-04-11 23:47:16", "2262-04-11T23:47:16.854Z"),
    ],
)
def test_a_time_of_the_log_is_cut_and_never_rounded_up(
    nanoseconds: int, said: str, exactly: str
) -> None:
    assert (moment(nanoseconds), iso(nanoseconds)) == (said, exactly)


@given(nanoseconds=st.integers(0, EVER))
def test_people_and_machines_are_told_the_same_time(nanoseconds: int) -> None:
    read = datetime.fromisoformat(iso(nanoseconds))
    since = read - datetime(1970, 1, 1, tzinfo=UTC)
    milliseconds = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000

    assert milliseconds == nanoseconds // 1_000_000
    assert iso(nanoseconds)[:19] == moment(nanoseconds).replace(" ", "T")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1970-01-01"), (86_399, "1970-01-01"), (86_400, "1970-01-02"),
     (253_402_300_799, "9999-12-31")],  # RFC 5280 s4.1.2.5: no certificate ends later
)  # fmt: skip
def test_a_day_ends_at_midnight_of_utc(seconds: int, said: str) -> None:
    assert day(seconds) == said


# How long something took


@pytest.mark.parametrize(
    ("nanoseconds", "said"),
    [
        (0, "0 ms"),
        (3_000_000, "3 ms"),
        (999_000_000, "999 ms"),
        (SECOND, "1.0 s"),
        (2_400_000_000, "2.4 s"),
        (59_900_000_000, "59.9 s"),
        (MINUTE, "1 min 00 s"),
        (MINUTE + 5 * SECOND, "1 min 05 s"),
        (HOUR - SECOND, "59 min 59 s"),
        (HOUR, "1 h 00 min"),
        (HOUR + 5 * MINUTE, "1 h 05 min"),
        (25 * HOUR + 59 * MINUTE, "25 h 59 min"),
    ],
)
def test_a_stretch_of_time_is_told_in_the_unit_that_fits(nanoseconds: int, said: str) -> None:
    assert lasting(nanoseconds) == said


_FORMS: Final = (
    (r"(\d{1,3}) ms", (1_000_000,)),
    (r"(\d{1,2}\.\d) s", (SECOND,)),
    (r"(\d{1,2}) min (\d{2}) s", (MINUTE, SECOND)),
    (r"(\d+) h (\d{2}) min", (HOUR, MINUTE)),
)
_LESS_THAN: Final = {1_000_000: 1000, SECOND: 60, MINUTE: 60, HOUR: EVER}


def parts(said: str) -> tuple[tuple[Fraction, int], ...]:
    """The numbers of a told stretch of time, each with its unit in nanoseconds."""
    for form, units in _FORMS:
        if found := re.fullmatch(form, said):
            return tuple(zip(map(Fraction, found.groups()), units, strict=True))
    pytest.fail(f"no stretch of time: {said}")


@given(nanoseconds=st.integers(0, 2 * HOUR) | st.integers(0, EVER))
@example(SECOND - 1)
@example(SECOND - 400_000)  # 999.6 ms are not "1000 ms"
@example(MINUTE - 1)
@example(MINUTE - 40_000_000)  # 59.96 s are not "60.0 s"
@example(HOUR - 1)
@example(HOUR)
def test_no_part_of_a_told_stretch_is_a_whole_of_the_next_unit(nanoseconds: int) -> None:
    said = parts(lasting(nanoseconds))
    told = sum((number * unit for number, unit in said), Fraction(0))

    assert all(number < _LESS_THAN[unit] for number, unit in said), lasting(nanoseconds)
    assert abs(told - nanoseconds) < said[-1][1], lasting(nanoseconds)


@given(one=st.integers(0, 2 * HOUR), other=st.integers(0, 2 * HOUR))
def test_what_lasted_longer_is_never_told_as_shorter(one: int, other: int) -> None:
    less, more = (
        sum(number * unit for number, unit in parts(lasting(each))) for each in sorted((one, other))
    )

    assert less <= more


@pytest.mark.parametrize("seconds", [10**12, -(10**12), 10**17, 2**63 - 1])
def test_a_day_that_no_calendar_has_is_unknown(seconds: int) -> None:
    assert day(seconds) == "unknown"


@pytest.mark.parametrize(
    ("result", "answered", "refused", "text", "tone"),
    [
        ("waiting", 2, 0, "2 of 3 answered", "warn"),
        ("done", 0, 0, "done", "good"),
        ("done", 1, 0, "done", "good"),
        ("done", 3, 0, "done by 3 replicas", "good"),
        ("refused", 0, 0, "refused", "bad"),
        ("refused", 1, 1, "refused", "bad"),
        ("refused", 3, 2, "2 of 3 refused", "bad"),
        ("waiting", 0, 0, "waiting", "warn"),
    ],
)
def test_an_orders_badge_counts_those_who_answered(
    result: str, answered: int, refused: int, text: str, tone: str
) -> None:
    row = {"result": Result(result), "answered": answered, "refused": refused, "expected": 3}
    found = command_badge(row)

    assert (found.text, found.tone) == (text, tone)


def test_every_order_has_a_name_for_people() -> None:
    names = {command_name(kind) for kind in Command}

    assert len(names) == len(Command)
    assert not names & {kind.value for kind in Command}
    assert command_name("unheard-of") == "unheard-of"


def test_a_certificate_that_expired_on_hold_is_shown_as_its_commands_treat_it() -> None:
    row = {
        "revoked_at": 1,
        "revocation_reason": RevocationReason.CERTIFICATE_HOLD,
        "not_after": 1000,
    }

    assert [certificate_badge(row, now).text for now in (999.0, 1001.0)] == ["on hold", "expired"]
    assert [certificate_status(row, now) for now in (999.0, 1001.0)] == ["held", "expired"]
