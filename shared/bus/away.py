"""One line for a bus that is away, and ever fewer while it stays away."""

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
    """Logs failed attempts: the first, then one after 1, 2, 4 ... 60 seconds until one succeeds."""

    urls: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    _gap: float = _FIRST_SECONDS
    _next: float = -math.inf

    def note(self, error: Exception) -> None:
        """An attempt failed; what is logged of the URLs holds no user name and no password."""
        now = self.clock()
        if now < self._next:
            return
        servers = [place(url) for url in self.urls]
        detail = str(error)[:_MOST_DETAIL]
        _log.warning("bus_disconnected", servers=servers, error=type(error).__name__, detail=detail)
        self._next, self._gap = now + self._gap, min(self._gap * 2, _MOST_SECONDS)

    def over(self) -> None:
        """An attempt succeeded."""
        self._gap, self._next = _FIRST_SECONDS, -math.inf
