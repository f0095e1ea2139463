"""The chart of successes and failures: nothing is lost or outside, and bars have borders."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.web.chart import RANGES, Chart, draw

HOUR: Final = 3600
NOW: Final = 1_767_225_600 + 12 * HOUR + 1234  # 2026-01-01, a little after noon
HUNDREDTH: Final = 0.0101  # places are rounded to hundredths: so much is no overlap
Counted = tuple[int, bool, int]


def begin(name: str, now: float) -> int:
    """Where the first bar begins, told apart from how the chart computes it."""
    length, count = RANGES[name]
    return int(now) - int(now) % length - (count - 1) * length


def hours(reach: int = 12 * 24) -> st.SearchStrategy[int]:
    """Beginnings of hours around the charts' time, before and after it."""
    this = NOW - NOW % HOUR
    return st.integers(-reach, reach).map(lambda number: this + number * HOUR)


COUNTED: Final = st.lists(st.tuples(hours(), st.booleans(), st.integers(1, 10**9)), max_size=60)
NAMES: Final = st.sampled_from(sorted(RANGES))


def at(chart: Chart, index: int) -> int:
    """When a bar says that it begins, in Unix seconds."""
    read = datetime.strptime(chart.bars[index].at, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    return int(read.timestamp())


@given(counted=COUNTED, name=NAMES)
def test_every_hour_within_is_counted_once_and_every_hour_outside_is_left_out(
    counted: list[Counted], name: str
) -> None:
    chart, (length, count) = draw(counted, name, NOW), RANGES[name]
    first = begin(name, NOW)
    within = [each for each in counted if first <= each[0] < first + length * count]

    assert chart.successes == sum(n for _, success, n in within if success)
    assert chart.failures == sum(n for _, success, n in within if not success)
    assert chart.successes == sum(bar.successes for bar in chart.bars)
    assert chart.failures == sum(bar.failures for bar in chart.bars)


@given(counted=COUNTED, name=NAMES)
def test_a_bar_counts_what_lies_between_its_beginning_and_the_next(
    counted: list[Counted], name: str
) -> None:
    chart, (length, _) = draw(counted, name, NOW), RANGES[name]
    for index, bar in enumerate(chart.bars):
        inside = [each for each in counted if 0 <= each[0] - at(chart, index) < length]
        assert bar.successes == sum(n for _, success, n in inside if success)
        assert bar.failures == sum(n for _, success, n in inside if not success)


@given(counted=COUNTED, name=NAMES, now=st.floats(10**8, 4 * 10**9))
def test_no_bar_leaves_the_drawing_or_covers_another(
    counted: list[Counted], name: str, now: float
) -> None:
    chart = draw(counted, name, now)

    assert all(bar.x >= 0 and bar.x + bar.width <= chart.width for bar in chart.bars)
    assert all(one.x + one.width < other.x for one, other in pairwise(chart.bars))
    for bar in chart.bars:
        assert bar.success_height >= 0
        assert bar.failure_height >= 0
        assert bar.success_y + bar.success_height == pytest.approx(chart.height, abs=HUNDREDTH)
        assert bar.failure_y + bar.failure_height == pytest.approx(bar.success_y, abs=HUNDREDTH)


@given(successes=st.integers(0, 10**6), failures=st.integers(0, 10**6))
def test_the_fullest_bar_is_as_high_as_the_drawing_and_no_higher(
    successes: int, failures: int
) -> None:
    hour = NOW - NOW % HOUR
    chart = draw([(hour, True, successes), (hour, False, failures)], "24h", NOW)
    bar = chart.bars[-1]

    assert chart.most == max(1, successes + failures)
    assert bar.failure_y >= 0
    full = chart.height if successes or failures else 0
    assert bar.success_height + bar.failure_height == pytest.approx(full, abs=HUNDREDTH)


def test_a_split_that_rounds_up_twice_stays_in_the_drawing() -> None:
    """25 of 192 are 15.625 of 120 units, and the rest 104.375: both end in a half."""
    hour = NOW - NOW % HOUR
    chart = draw([(hour, True, 25), (hour, False, 167)], "24h", NOW)

    assert chart.bars[-1].failure_y >= 0


@given(name=NAMES, now=st.floats(10**8, 4 * 10**9))
def test_the_last_bar_is_the_one_that_now_stands_in(name: str, now: float) -> None:
    chart, (length, count) = draw([], name, now), RANGES[name]

    assert len(chart.bars) == count
    assert at(chart, count - 1) <= now < at(chart, count - 1) + length
    assert {at(chart, i + 1) - at(chart, i) for i in range(count - 1)} == {length}
    assert at(chart, 0) == begin(name, now)


@pytest.mark.parametrize("name", sorted(RANGES))
def test_hours_at_the_borders_stand_in_the_first_the_last_or_no_bar(name: str) -> None:
    (length, count), first = RANGES[name], begin(name, NOW)
    end = first + length * count
    outside = draw([(first - HOUR, True, 5), (end, False, 7)], name, NOW)
    inside = draw([(first, True, 5), (end - HOUR, False, 7)], name, NOW)

    assert (outside.successes, outside.failures) == (0, 0)
    assert (inside.bars[0].successes, inside.bars[-1].failures) == (5, 7)
    assert (inside.successes, inside.failures) == (5, 7)


@pytest.mark.parametrize(("seconds", "place"), [(0, -1), (HOUR - 1, -1), (HOUR, -2)])
def test_an_hour_moves_on_when_the_next_one_begins(seconds: int, place: int) -> None:
    hour = NOW - NOW % HOUR
    chart = draw([(hour, True, 3)], "24h", hour + seconds)

    assert chart.bars[place].successes == 3


def test_nothing_counted_is_a_chart_of_empty_bars() -> None:
    chart = draw([], "7d", NOW)

    assert (chart.successes, chart.failures, chart.most) == (0, 0, 1)
    assert {(bar.success_height, bar.failure_height) for bar in chart.bars} == {(0, 0)}
    assert {(bar.success_y, bar.failure_y) for bar in chart.bars} == {(chart.height, chart.height)}
