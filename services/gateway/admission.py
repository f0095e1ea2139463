"""Which requests are worked on: rates by source, places in flight, a bound on the time they wait.

Theory of operation. Work that is admitted waits in two queues: for the gateway's CPU, and on the
log for the services behind it. Neither may grow beyond what is answered in time, or under overload
everybody waits until they give up and all work is for clients that are gone.

By Little's law the requests in flight are rate x wait. Each profile has a gate that measures the
rate at which its requests end while it is loaded, and admits rate x `max_wait` of them. What comes
beyond is refused at once. A gate never closes below a floor: a few requests are always worth
trying, and the rate is measured with them when the services come back.

Requests take turns for the CPU: a few begin in each turn of the event loop, so accepting, reading
and refusing go on between their key operations. With one in each turn the log and the services
behind it got every request alone, and spent half as much again on each (decision 24). The line for
turns is bounded in the same way: by the rate at which turns come, times the longest wait in it.
For a second after a refusal the batches are smaller and some turns pass between them, so that what
has arrived is refused soon; whole requests are then refused before they cost a connection
(`Gateway.refuse`). A client that is gone by its turn costs nothing.
"""

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from services.gateway.refusals import CLIENT_GONE, OVERLOAD, RefusedError, rate_limited
from services.gateway.settings import Limits
from shared.config.addresses import source_key
from shared.limits import RATE_SOURCES
from shared.observe.metrics import IN_FLIGHT
from shared.runtime.edge import Client

_FLOOR: Final = 64
_FIRST_RATE: Final = 256.0
_WINDOW_SECONDS: Final = 1.0
# What ends so soon after the failure floor did not go through the log.
_QUICK_SECONDS: Final = 0.01
_AT_ONCE: Final = 32  # some 60 ms of key operations
_AT_ONCE_IN_OVERLOAD: Final = 48
_PAUSE_IN_OVERLOAD: Final = 16  # turns of the loop
_OVERLOAD_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.5  # the refusal is to be there within a second
_LINE_WINDOW_SECONDS: Final = 0.5
_LINE_SECONDS: Final = 0.4  # who joins a longer line would wait in vain


@dataclass
class Rates:
    """A token bucket for each source, of the last so many sources; `clock` in seconds."""

    clock: Callable[[], float]
    _buckets: "OrderedDict[str, tuple[float, float]]" = field(default_factory=OrderedDict)

    def take(self, source: str, rate: float, burst: int) -> float:
        """Take a token; return 0, or the seconds until there is one. A rate of 0 is no limit."""
        if not rate or not source:
            return 0.0
        now = self.clock()
        tokens, since = self._buckets.get(source, (float(burst), now))
        tokens = min(float(burst), tokens + (now - since) * rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / rate
        self._buckets[source] = (tokens - 1 if not wait else tokens, now)
        self._buckets.move_to_end(source)
        if len(self._buckets) > RATE_SOURCES:
            self._buckets.popitem(last=False)
        return wait


@dataclass
class Gate:
    """How many requests of one profile are worth having in flight."""

    in_flight: int = 0
    _rate: float = _FIRST_RATE
    _since: float = float("-inf")
    _ended: int = 0
    _fewest: int = 0

    def is_full(self, now: float, max_wait: float) -> bool:
        """Return whether one more would wait longer than `max_wait` seconds."""
        self._measure(now)
        return self.in_flight >= max(_FLOOR, self._rate * max_wait)

    def enter(self) -> None:
        """Count a request in flight."""
        self.in_flight += 1

    def leave(self, now: float, *, answered: bool) -> None:
        """Count a request that ended, with an answer of the log or without."""
        self._measure(now)
        self._ended += answered
        self.in_flight -= 1
        self._fewest = min(self._fewest, self.in_flight)

    def _measure(self, now: float) -> None:
        """Once a second: the rate, if the gate was loaded all the time since."""
        elapsed = now - self._since
        if elapsed < _WINDOW_SECONDS:
            return
        if self._fewest >= _FLOOR // 2 and math.isfinite(elapsed):
            self._rate = (self._rate + self._ended / elapsed) / 2
        self._since, self._ended, self._fewest = now, 0, self.in_flight


@dataclass
class Turns:
    """Lets a few waiting tasks go on in each turn of the event loop, in their order.

    `pause` turns follow in which none goes on. The loop passes the turn on, never a task: one that
    is cancelled in its turn holds up nobody. `clock` gives seconds that only grow.
    """

    clock: Callable[[], float]
    at_once: int = _AT_ONCE
    pause: int = 0
    _length: int = 0  # of the line of those who wait
    _rate: float = _FIRST_RATE  # turns a second
    _since: float = 0.0
    _passed: int = 0
    _waiting: "deque[asyncio.Future[None]]" = field(default_factory=deque)
    _taken: int = 0
    _paused: int = 0

    async def next(self, seconds: float) -> None:
        """Wait for a turn; `TimeoutError` after so many seconds."""
        loop = asyncio.get_running_loop()
        if self._waiting or self._paused or self._taken >= self.at_once:
            if not self._waiting:
                self._since, self._passed = self.clock(), 0
            mine = loop.create_future()
            self._waiting.append(mine)
            self._length += 1
            try:
                await asyncio.wait_for(mine, seconds)
            finally:
                self._length -= 1
            return
        if not self._taken:
            loop.call_soon(self._pass_on)
        self._taken += 1

    def is_long(self) -> bool:
        """Return whether one more in the line would wait too long for a turn."""
        return self._length >= max(_AT_ONCE, self._rate * _LINE_SECONDS)

    def _measure(self) -> None:
        """Measure the rate while somebody waits all the time: else it is that of the arrivals."""
        self._passed += self._taken
        now = self.clock()
        if self._waiting and now - self._since >= _LINE_WINDOW_SECONDS:
            self._rate = (self._rate + self._passed / (now - self._since)) / 2
            self._since, self._passed = now, 0

    def _pass_on(self) -> None:
        if self._taken:
            self._taken, self._paused = 0, self.pause
        elif self._paused:
            self._paused -= 1
        while self._waiting and not self._paused and self._taken < self.at_once:
            following = self._waiting.popleft()
            if not following.done():
                following.set_result(None)
                self._taken += 1
        self._measure()
        if self._taken or self._paused:
            asyncio.get_running_loop().call_soon(self._pass_on)


@dataclass
class Admission:
    """Admits PKIOperations; `clock` gives seconds that only grow."""

    clock: Callable[[], float]
    _in_flight: "Counter[str]" = field(default_factory=Counter)
    _gates: dict[str, Gate] = field(default_factory=dict)
    _overloaded_until: float = -math.inf

    def __post_init__(self) -> None:
        self._rates, self._turns = Rates(self.clock), Turns(self.clock)

    def check(self, limits: Limits, profile: str, address: str) -> None:
        """Refuse before the body is read; `RefusedError`."""
        self._check_places(limits, profile, source_key(address))
        wait = self._rates.take(source_key(address), limits.rate, limits.burst)
        if wait:
            raise RefusedError(rate_limited(math.ceil(wait)))

    def is_overloaded(self) -> bool:
        """Return whether a request was refused for want of a place within the last second."""
        return self.clock() < self._overloaded_until

    def is_full(self, limits: Limits, profile: str) -> bool:
        """Return whether there is no place for one more request of a profile, whoever sends it."""
        full = self._gate(profile).is_full(self.clock(), limits.max_wait)
        full = full or self._turns.is_long()
        if not full and self._in_flight.total() < limits.in_flight:
            return False
        self._overloaded_until = self.clock() + _OVERLOAD_SECONDS
        return True

    def _check_places(self, limits: Limits, profile: str, source: str) -> None:
        if self._in_flight[source] >= limits.in_flight_per_source:
            raise RefusedError(OVERLOAD)
        if self.is_full(limits, profile):
            raise RefusedError(OVERLOAD)

    @asynccontextmanager
    async def place(
        self, limits: Limits, profile: str, address: str, client: Client
    ) -> AsyncIterator[None]:
        """Hold a place for a whole message, from its turn on; cancelled when the client goes.

        `RefusedError` where there is no place, or no turn in time.
        """
        source = source_key(address)
        self._check_places(limits, profile, source)
        gate, answered = self._gate(profile), False
        self._in_flight[source] += 1
        gate.enter()
        try:
            with IN_FLIGHT.labels("gateway").track_inprogress(), client.watched():
                await self._turn(client)
                started = self.clock()
                yield
            answered = self.clock() - started > limits.failure_floor + _QUICK_SECONDS
        finally:
            gate.leave(self.clock(), answered=answered)
            self._in_flight[source] -= 1
            if not self._in_flight[source]:
                del self._in_flight[source]

    async def _turn(self, client: Client) -> None:
        overloaded = self.is_overloaded()
        self._turns.at_once = _AT_ONCE_IN_OVERLOAD if overloaded else _AT_ONCE
        self._turns.pause = _PAUSE_IN_OVERLOAD if overloaded else 0
        try:
            await self._turns.next(_TURN_SECONDS)
        except TimeoutError:
            raise RefusedError(OVERLOAD) from None
        if client.gone:
            raise RefusedError(CLIENT_GONE)

    def _gate(self, profile: str) -> Gate:
        return self._gates.setdefault(profile, Gate())
