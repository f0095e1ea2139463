"""Rate-limited logging of failed connection attempts to the bus."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from shared.bus.servers import place

_log = structlog.get_logger()
_FIRST_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 60.0
_MOST_DETAIL: Final = 200


@dataclass
class Away:
    """Logs the first failed attempt, then one after 1, 2, 4 ... 60 seconds until one succeeds.

    `clock` returns monotonic seconds.
    """

    urls: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    _gap: float = _FIRST_SECONDS
    _next: float = -math.inf

    def note(self, error: Exception) -> None:
        """Record a failed attempt; the log line shows no user name or password from the URLs."""
        now = self.clock()
        if now < self._next:
            return
        servers = [place(url) for url in self.urls]
        detail = str(error)[:_MOST_DETAIL]
        _log.warning("bus_disconnected", servers=servers, error=type(error).__name__, detail=detail)
        self._next, self._gap = now + self._gap, min(self._gap * 2, _MOST_SECONDS)

    def succeeded(self) -> None:
        """Record a successful attempt: the next failure is logged at once."""
        self._gap, self._next = _FIRST_SECONDS, -math.inf
