"""Conditional requests for a CRL: whatever a client sends, the answer is yes or no."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.caching import is_unchanged

CRL = {"etag": '"a"', "last-modified": "Wed, 01 Jul 2026 00:00:00 GMT"}
NUMBER = st.integers(0, 10**30).map(str)


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 99999999999 Jan 2024 00:00:00 GMT",
        "Mon, 01 Jan 2024 99999999999:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2359",
    ],
)
def test_a_date_that_there_is_not_is_no_condition(date: str) -> None:
    assert not is_unchanged({"if-modified-since": date}, CRL)


@given(st.builds("Mon, {} Jan {} {}:{}:{} +{}".format, *[NUMBER] * 6) | st.text(max_size=64))
def test_any_date_is_read_or_left(date: str) -> None:
    assert is_unchanged({"if-modified-since": date}, CRL) in {True, False}
