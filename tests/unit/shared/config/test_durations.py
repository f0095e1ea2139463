"""Durations as configuration and command line write them, there and back."""

from typing import Final

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cli.challenge import _time
from cli.durations import seconds
from shared.config.fields import is_duration, parse_duration, write_duration
from shared.config.profiles import CertificateProfileSection, ProfileSection
from shared.config.sections import (
    AuditSection,
    GatewaySection,
    LocalIssuerSection,
    LogSection,
    ValidatorSection,
)
from tests.support.world import NOW

UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
LONGEST: Final = 999_999_999
numbers = st.integers(0, LONGEST)
written = st.builds(lambda number, unit: f"{number}{unit}", numbers, st.sampled_from(list(UNITS)))


def milliseconds(text: str) -> int:
    """An independent reading."""
    number = text.rstrip("mshd")
    return int(number) * UNITS[text.removeprefix(number)]


# There and back


@given(written)
def test_what_is_written_reads_as_what_was_read(text: str) -> None:
    found = parse_duration(text)

    assert parse_duration(write_duration(found)) == found
    assert milliseconds(write_duration(found)) == milliseconds(text)


@given(written)
def test_a_duration_is_its_number_times_its_unit(text: str) -> None:
    assert round(parse_duration(text) * 1000) == milliseconds(text)


@given(written)
def test_the_largest_unit_that_is_whole_is_written(text: str) -> None:
    found = milliseconds(write_duration(parse_duration(text)))
    unit = write_duration(parse_duration(text)).lstrip("0123456789")
    larger = [size for size in UNITS.values() if size > UNITS[unit]]

    assert found == 0 or all(found % size for size in larger)


@pytest.mark.parametrize(
    ("seconds_", "text"),
    [(0.0, "0s"), (0.05, "50ms"), (1.0, "1s"), (1.5, "1500ms"), (90.0, "90s"), (3600.0, "1h"),
     (86400.0, "1d"), (90000.0, "25h"), (365 * 86400.0, "365d")],
)  # fmt: skip
def test_durations_are_written_as_people_do(seconds_: float, text: str) -> None:
    assert write_duration(seconds_) == text


# What is none


@pytest.mark.parametrize(
    "text",
    ["", "s", "1", "1.5h", "-1s", "+1s", " 1s", "1s ", "1s\n", "1 s", "1S", "1H", "1us", "1w",
     "1h30m", "0x1s", "1e3s", "1_000s", "\u0661s", "\uff11s", "1000000000s", "infs"],
)  # fmt: skip
def test_anything_else_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match='not a duration: write "90s"'):
        parse_duration(text)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_the_one_error(text: str) -> None:
    try:
        found = parse_duration(text)
    except ValueError as error:
        assert "not a duration" in str(error)  # noqa: PT017 - most texts are none
    else:
        assert found >= 0


# Which keys hold one


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        (LogSection, {"retry_window"}),
        (GatewaySection, {"failure_floor", "max_wait"}),
        (ValidatorSection, {"verdict_ttl"}),
        (AuditSection, {"session_ttl", "expiry_webhook_timeout"}),
        (LocalIssuerSection, {"crl_validity", "ocsp_validity", "max_ttl", "max_backdate"}),
        (CertificateProfileSection, {"max_ttl", "backdate"}),
        (
            ProfileSection,
            {"intune_challenge_validity", "intune_clock_skew_tolerance", "device_state_timeout",
             "webhook_timeout", "renewal_window", "renewal_grace", "reply_budget",
             "compliance_grace"},
        ),
    ],
)  # fmt: skip
def test_a_key_is_known_to_hold_one_bounded_or_optional(section: type, keys: set[str]) -> None:
    fields = section.model_fields  # type: ignore[attr-defined]

    assert {name for name, field in fields.items() if is_duration(field)} == keys


# On the command line


@given(st.integers(1, 3650), st.sampled_from(["s", "m", "h", "d"]))
def test_the_command_line_takes_the_same_durations(number: int, unit: str) -> None:
    assert seconds(f"{number}{unit}") == number * UNITS[unit] // 1000


@pytest.mark.parametrize("text", ["0s", "0d", "0ms", "1ms", "999ms"])
def test_the_command_line_takes_no_less_than_a_second(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="at least 1 second"):
        seconds(text)


@pytest.mark.parametrize("text", ["", "60", "1h30m", "-1s", "soon"])
def test_the_command_line_says_how_to_write_one(text: str) -> None:
    with pytest.raises(typer.BadParameter, match='write "90s"'):
        seconds(text)


def test_the_end_of_the_longest_that_is_taken_can_be_shown() -> None:
    """Else one challenge with such a ttl makes every later list of challenges fail."""
    try:
        longest = seconds(f"{LONGEST}d")
    except typer.BadParameter:
        return

    assert _time(NOW + longest)
