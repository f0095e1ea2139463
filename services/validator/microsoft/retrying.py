"""When to ask Microsoft again: retries, waits, and a circuit breaker. Pure.

Theory of operation. A call makes up to a few attempts within its budget. `next_move` decides from
the last attempt what comes next: use the answer, get a new token (once), look the service up again
(once), wait and repeat, or give up. A `Breaker` stands before each service of a tenant: after
`FAILURES` attempts in a row without a usable connection or with a 5xx, calls fail at once for
`OPEN_SECONDS`; then one attempt is let through.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

UNREACHED: Final = 0  # no connection: the request was not sent
LOST: Final = -1  # no complete answer: the request may have been carried out
FAILURES: Final = 5
OPEN_SECONDS: Final = 30.0
MAX_RETRIES: Final = 2
_MAX_WAITS: Final = 3
_SHORTEST: Final = 0.2
_LONGEST: Final = 2.0
_UNAUTHORIZED: Final = 401
_MOVED: Final = frozenset({UNREACHED, 404, 410, 421})
_THROTTLED: Final = frozenset({429, 503})
_TRANSIENT: Final = frozenset({UNREACHED, LOST, 429, 500, 502, 503, 504})
_OK: Final = range(200, 300)
_SERVER_ERRORS: Final = range(500, 600)


class Step(Enum):
    """What comes next."""

    USE = auto()
    REFRESH = auto()
    RELOCATE = auto()
    WAIT = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class Tried:
    """What a call has tried so far."""

    refreshed: bool = False
    relocated: bool = False
    retries: int = 0
    waits: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """The next step, how many seconds to wait before it, and what has been tried with it."""

    step: Step
    tried: Tried
    seconds: float = 0.0


def next_move(
    status: int,
    wish: float | None,
    tried: Tried,
    remaining: float,
    draw: float,
    *,
    relocatable: bool = False,
) -> Move:
    """Return what to do after an attempt.

    `status` is HTTP's, `UNREACHED` or `LOST`; `wish` the Retry-After in seconds; `remaining` the
    seconds left of the budget; `draw` a random number in [0, 1). `relocatable` says whether the
    service's URL was looked up, and may have changed.
    """
    if status in _OK:
        return Move(Step.USE, tried)
    if status == _UNAUTHORIZED and not tried.refreshed:
        return Move(Step.REFRESH, replace(tried, refreshed=True))
    if relocatable and status in _MOVED and not tried.relocated:
        return Move(Step.RELOCATE, replace(tried, relocated=True))
    return _wait_or_fail(status, wish, tried, remaining, draw)


def _wait_or_fail(
    status: int, wish: float | None, tried: Tried, remaining: float, draw: float
) -> Move:
    """Return a wait that fits into the budget: the service's own wish, else a random one."""
    if status in _THROTTLED and wish is not None:
        if wish < remaining and tried.waits < _MAX_WAITS:
            return Move(Step.WAIT, replace(tried, waits=tried.waits + 1), wish)
        return Move(Step.FAIL, tried)
    pause = _SHORTEST + draw * (_LONGEST - _SHORTEST)
    if status in _TRANSIENT and tried.retries < MAX_RETRIES and pause < remaining:
        return Move(Step.WAIT, replace(tried, retries=tried.retries + 1), pause)
    return Move(Step.FAIL, tried)


def is_failure(status: int, wish: float | None) -> bool:
    """Return whether an attempt counts against the breaker; a wish to be asked later does not."""
    if status in _THROTTLED and wish is not None:
        return False
    return status <= 0 or status in _SERVER_ERRORS


def may_have_acted(status: int) -> bool:
    """Return whether the request of an attempt without a usable answer may be carried out."""
    return (
        status == LOST or status in _OK or (status in _SERVER_ERRORS and status not in _THROTTLED)
    )


@dataclass(slots=True)
class Breaker:
    """The state of one service; times are in seconds of one clock."""

    failures: int = 0
    open_until: float = 0.0

    @property
    def open(self) -> bool:
        """Whether the service has failed too often, and no attempt has succeeded since."""
        return self.failures >= FAILURES

    def wait(self, now: float) -> float:
        """Return for how many seconds the service must not be asked; 0 if it may be asked now.

        If the breaker was open, the caller is the one that tries.
        """
        if not self.open:
            return 0.0
        if now < self.open_until:
            return self.open_until - now
        self.open_until = now + OPEN_SECONDS
        return 0.0

    def succeeded(self) -> None:
        """Record an answer, whatever it says."""
        self.failures, self.open_until = 0, 0.0

    def failed(self, now: float) -> None:
        """Record that there was no answer, or a server error."""
        self.failures += 1
        if self.open:
            self.open_until = now + OPEN_SECONDS
