"""How often one source, and all together, may fail to show a good token."""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from shared.limits import FAILURES_IN_ALL, THROTTLED_SOURCES

_SECONDS: Final = 60.0


@dataclass
class Attempts:
    """Failures of the last minute: `most` by source, of the last so many sources, and in all."""

    most: int
    _failed: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    _all: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES_IN_ALL))

    def wait(self, source: str, now: float) -> int:
        """Return whole seconds until this source may try again, 0 for at once."""
        mine = self._failed.get(source, deque())
        return max(_wait(mine, self.most, now), _wait(self._all, FAILURES_IN_ALL, now))

    def failed(self, source: str, now: float) -> None:
        """Count a failure; where there are too many sources the oldest is forgotten."""
        self._failed.setdefault(source, deque(maxlen=self.most)).append(now)
        self._failed.move_to_end(source)
        self._all.append(now)
        if len(self._failed) > THROTTLED_SOURCES:
            self._failed.popitem(last=False)

    def forgive(self, source: str) -> None:
        """Take the last attempt back: it did not fail."""
        for failed in (self._failed.get(source), self._all):
            if failed:
                failed.pop()


def _wait(failed: deque[float], most: int, now: float) -> int:
    while failed and failed[0] <= now - _SECONDS:
        failed.popleft()
    return math.ceil(failed[0] + _SECONDS - now) if len(failed) >= most else 0
