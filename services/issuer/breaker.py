"""A circuit breaker: a CA that fails is asked less often, and by one order at a time.

Theory of operation. After `_FAILURES` failures in a row the breaker opens: nobody asks for a pause
that doubles from `_FIRST_PAUSE` to `_LONGEST_PAUSE`, or for as long as the CA itself asked. Then
one order is let through, and one more every `_TRIAL` until an answer closes the breaker or a
failure opens it again.
"""

from dataclasses import dataclass
from typing import Final

_FAILURES: Final = 3
_FIRST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 60.0
_LONGEST_WISH: Final = 900.0
_TRIAL: Final = 5.0


@dataclass
class Breaker:
    """The state of one CA; times are in seconds of any steady clock."""

    failures: int = 0
    _closed_until: float = 0.0

    def wait(self, now: float) -> float:
        """Return for how many seconds the CA must not be asked; 0 if it may be asked now.

        If it was open, the caller is the one that tries.
        """
        if self.failures < _FAILURES and now >= self._closed_until:
            return 0.0
        if now < self._closed_until:
            return self._closed_until - now
        self._closed_until = now + _TRIAL
        return 0.0

    def succeeded(self) -> None:
        """Record an answer, whatever it says."""
        self.failures, self._closed_until = 0, 0.0

    def failed(self, now: float, wish: float = 0.0) -> float:
        """Record that the CA did not answer; return the seconds until it may be asked again.

        `wish` is the CA's own Retry-After in seconds, 0 if there is none.
        """
        self.failures += 1
        pause = min(wish, _LONGEST_WISH)
        if self.failures >= _FAILURES:
            doubled = _FIRST_PAUSE * 2.0 ** min(self.failures - _FAILURES, 10)
            pause = max(pause, min(doubled, _LONGEST_PAUSE))
        self._closed_until = now + pause
        return pause
