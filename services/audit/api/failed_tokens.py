"""How often one source, and all together, may fail to show a good token.

Only what has failed counts as a failure. What is being looked up counts against its own source as
long as that takes, so that many guesses at a time are no more than many after another.

Beyond the bound of all together, sources wait that have failed themselves: a stranger's guesses
keep nobody out, and whoever guesses from many addresses has one guess a minute from each.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from shared.limits import FAILURES_IN_ALL, THROTTLED_SOURCES

_SECONDS: Final = 60.0
_SOON: Final = 1  # second, where only what is under way stands in the way


@dataclass
class Attempts:
    """Failures of the last minute: `most` by source, of the last so many sources, and in all."""

    most: int
    _failed: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _all: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES_IN_ALL))
    _under_way: Counter[str] = field(default_factory=Counter)

    def wait(self, source: str, now: float) -> int:
        """Return whole seconds until this source may try again, 0 for at once."""
        mine = self._failed.get(source, deque())
        wait = _wait(mine, self.most - self._under_way[source], now)
        return max(wait, _wait(self._all, FAILURES_IN_ALL, now)) if mine else wait

    @contextmanager
    def looking_up(self, source: str) -> Iterator[None]:
        """Count a try while it is not known whether it fails."""
        self._under_way[source] += 1
        try:
            yield
        finally:
            self._under_way[source] -= 1
            if not self._under_way[source]:
                del self._under_way[source]

    def failed(self, source: str, now: float) -> None:
        """Count a failure; where there are too many sources the oldest is forgotten."""
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
