"""Times of `--since` and `--until` are exact to the microsecond that was written."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.proof.window import moment


@given(microseconds=st.integers(0, 7_000_000_000_000_000))
def test_no_nanosecond_is_lost(microseconds: int) -> None:
    time = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)

    assert moment(time.isoformat()) == microseconds * 1000


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "2026-01-01T02:00:00+02:00"])
def test_a_time_without_an_offset_is_utc(text: str) -> None:
    assert moment(text) == 1767225600_000_000_000
