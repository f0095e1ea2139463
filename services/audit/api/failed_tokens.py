"""Throttling of failed authentication, per source and in total.

Only failed attempts count as failures. A lookup in progress also counts against its source, so
that concurrent guesses gain nothing over sequential ones.

Once the total limit is reached, only sources that have failed themselves must wait: one client's
guesses never lock out another, and an attacker with many addresses gets one guess per minute from
each.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from shared.limits import FAILURES_IN_ALL, THROTTLED_SOURCES

_SECONDS: Final = 60.0
_SOON: Final = 1  # second, if only lookups in progress use up the limit


@dataclass
class FailureLimiter:
    """Failures of the last minute, by source and in total.

    `most` is the limit per source. The last `THROTTLED_SOURCES` sources are remembered.
    """

    most: int
    _failed: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _all: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES_IN_ALL))
    _under_way: Counter[str] = field(default_factory=Counter)

    def wait(self, source: str, now: float) -> int:
        """Return how many whole seconds this source must wait; 0 if it may try now."""
        mine = self._failed.get(source, deque())
        wait = _wait(mine, self.most - self._under_way[source], now)
        return max(wait, _wait(self._all, FAILURES_IN_ALL, now)) if mine else wait

    @contextmanager
    def looking_up(self, source: str) -> Iterator[None]:
        """Count an attempt against its source while it is in progress."""
        self._under_way[source] += 1
        try:
            yield
        finally:
            self._under_way[source] -= 1
            if not self._under_way[source]:
                del self._under_way[source]

    def failed(self, source: str, now: float) -> None:
        """Count a failure; of too many sources, forget the one that failed longest ago."""
        self._failed.setdefault(source, deque(maxlen=self.most)).append(now)
        self._failed.move_to_end(source)
        self._all.append(now)
        if len(self._failed) > THROTTLED_SOURCES:
            self._failed.popitem(last=False)


def _wait(failed: deque[float], most: int, now: float) -> int:
    while failed and failed[0] <= now - _SECONDS:
        failed.popleft()
    if len(failed) < most:
        return 0
    return math.ceil(failed[0] + _SECONDS - now) if failed else _SOON
