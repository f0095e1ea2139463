"""The log's time, measured from a process's own appends, so that no local clock decides anything.

A replica whose clock is a day off would refuse every device for good, or never answer one again.
Each heartbeat is read back with the time at which the server stored it; from then on this
process's monotonic clock counts. The local clock is only compared with the result.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from shared.bus.core import Bus, BusUnavailableError
from shared.limits import CLOCK_SKEW_SECONDS
from shared.log.envelope import NANOSECONDS, Message, encode
from shared.log.events.state import Heartbeat
from shared.log.streams import REPLICAS
from shared.observe.metrics import CLOCK_SKEW
from shared.runtime.periodic import every
from shared.runtime.process import now

_log = structlog.get_logger()
_BEAT_SECONDS: Final = 5.0
_FIRST_SECONDS: Final = 0.5


@dataclass
class LogClock:
    """A clock that returns the log's time in Unix seconds when called.

    `subject` is that of this process's heartbeat, `local` the machine's clock (Unix seconds) and
    `monotonic` a clock in seconds that is never set.
    """

    bus: Bus
    subject: str
    local: Callable[[], float] = now
    monotonic: Callable[[], float] = time.monotonic
    _base: float | None = None
    _skew: float = 0.0
    _reported: bool = False

    def __call__(self) -> float:
        """Return the log's time; raise `BusUnavailableError` if it has not been measured yet."""
        if self._base is None:
            raise BusUnavailableError("log time not measured yet")
        return self._base + self.monotonic()

    def problems(self) -> list[str]:
        """Return the clock's problems for /readyz; [] if nothing is wrong."""
        if self._base is None:
            return ["log time not measured yet"]
        if abs(self._skew) > CLOCK_SKEW_SECONDS:
            return [f"the local clock is {self._skew:+.0f} s off the log's"]
        return []

    async def beat(self, message: Message) -> None:
        """Store a heartbeat, which expires by itself, and read back when the log stored it."""
        sequence = await self.bus.put(self.subject, message)
        local, counted = self.local(), self.monotonic()
        stored = await self.bus.get_last(REPLICAS, self.subject)
        if stored is None or stored.sequence != sequence:
            return  # read from a replica of the log that lags behind; the next beat tries again
        logged = stored.time / NANOSECONDS
        self._base, self._skew = logged - counted, local - logged
        CLOCK_SKEW.set(self._skew)
        wrong = abs(self._skew) > CLOCK_SKEW_SECONDS
        if wrong and not self._reported:
            _log.error("clock_skewed", seconds=round(self._skew))
        self._reported = wrong

    def pause(self) -> float:
        """Return the seconds until the next heartbeat; fewer until the time is measured."""
        return _FIRST_SECONDS if self._base is None else _BEAT_SECONDS

    async def run(self, message: Callable[[], Message]) -> None:
        """Store a heartbeat every few seconds, forever."""
        await every(self.pause, lambda: self.beat(message()), name="heartbeat")


def heartbeat(role: str, name: str, since: int) -> Message:
    """Return the heartbeat of a replica that reports only that it is running."""
    return encode(Heartbeat(role=role, name=name, since=since, anchors={}))
