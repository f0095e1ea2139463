"""Bar charts of successes and failures over time. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_HOUR: Final = 3600
_WIDTH: Final = 720
_HEIGHT: Final = 120
_GAP: Final = 0.25
# Time ranges of charts: name -> (seconds per bar, number of bars).
RANGES: Final = {"24h": (_HOUR, 24), "7d": (6 * _HOUR, 28)}


def beginning(reach: str, now: float) -> int:
    """Return the time (Unix s) after which a chart needs the counted hours."""
    length, count = RANGES[reach]
    return int(now) - length * (count + 1)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar; `at` is the start of its time span, positions are in the chart's units."""

    at: str
    x: float
    width: float
    successes: int
    failures: int
    success_y: float
    success_height: float
    failure_y: float
    failure_height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars, oldest first, the totals, and the count that a bar of full height stands for."""

    bars: tuple[Bar, ...]
    successes: int
    failures: int
    most: int
    width: int = _WIDTH
    height: int = _HEIGHT


def draw(counted: Iterable[tuple[int, bool, int]], name: str, now: float) -> Chart:
    """Draw a chart from (start of the hour, success, count) up to `now`; times are Unix seconds."""
    length, count = RANGES[name]
    first = (int(now) // length - count + 1) * length
    sums = [[0, 0] for _ in range(count)]
    for hour, success, number in counted:
        place = (hour - first) // length
        if 0 <= place < count:
            sums[place][0 if success else 1] += number
    most = max(1, *(sum(each) for each in sums))
    bars = tuple(_bar(i, first + i * length, each, most, count) for i, each in enumerate(sums))
    return Chart(bars, sum(s for s, _ in sums), sum(f for _, f in sums), most)


def _bar(index: int, at: int, sums: list[int], most: int, count: int) -> Bar:
    step = _WIDTH / count
    good, both = (round(each / most * _HEIGHT, 2) for each in (sums[0], sum(sums)))
    return Bar(
        at=f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}",
        x=round(index * step + step * _GAP / 2, 2),
        width=round(step * (1 - _GAP), 2),
        successes=sums[0],
        failures=sums[1],
        success_y=round(_HEIGHT - good, 2),
        success_height=good,
        failure_y=round(_HEIGHT - both, 2),
        failure_height=round(both - good, 2),
    )
