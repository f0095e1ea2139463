"""Admission control: rate limits by source, limits in flight, and a bound on waiting times.

Theory of operation. Admitted work waits in two queues: for the gateway's CPU, and on the log for
the services behind it. Neither may grow beyond what can be answered in time. Otherwise, under
overload, every client waits until it gives up, and all work is done for clients that have gone.

By Little's law the number of requests in flight is rate x wait. Each profile has a gate that
measures its completion rate while it is loaded and admits rate x `max_wait` requests. The rest are
refused immediately. A gate always admits a minimum number of requests: these few cost little, and
they measure the rate again when the services recover.

Requests take turns for the CPU: a small batch starts in each iteration of the event loop, so that
connections are accepted, read and refused between the batches' key operations. When only one
request started per iteration, the log and the services behind it received every request alone and
spent half as much again on each (decision 24). The queue for turns is bounded in the same way: by
the rate at which turns are granted times the longest wait for one. For a second after a refusal,
batches are larger and pauses of several iterations separate them, so that waiting arrivals are
refused soon. Complete requests are then refused before they cost a connection (`Gateway.refuse`).
A client that has gone by its turn costs nothing.
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
# A request that ends this soon after the failure floor did not go through the log.
_QUICK_SECONDS: Final = 0.01
_AT_ONCE: Final = 32  # about 60 ms of key operations
_AT_ONCE_IN_OVERLOAD: Final = 48
_PAUSE_IN_OVERLOAD: Final = 16  # event loop iterations
_OVERLOAD_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.5  # so that a refusal arrives within a second
_LINE_WINDOW_SECONDS: Final = 0.5
_LINE_SECONDS: Final = 0.4  # a request in a longer queue would miss its turn


@dataclass
class Rates:
    """Token buckets of the last `RATE_SOURCES` sources; `clock` returns monotonic seconds."""

    clock: Callable[[], float]
    _buckets: "OrderedDict[str, tuple[float, float]]" = field(default_factory=OrderedDict)

    def take(self, source: str, rate: float, burst: int) -> float:
        """Take a token; return 0, or the seconds until one is free. A rate of 0 means no limit."""
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
    """Limit on the requests of one profile in flight, derived from their completion rate."""

    in_flight: int = 0
    _rate: float = _FIRST_RATE
    _since: float = float("-inf")
    _ended: int = 0
    _fewest: int = 0

    def is_full(self, now: float, max_wait: float) -> bool:
        """Return whether one more request would wait longer than `max_wait` seconds."""
        self._measure(now)
        return self.in_flight >= max(_FLOOR, self._rate * max_wait)

    def enter(self) -> None:
        """Count a request as in flight."""
        self.in_flight += 1

    def leave(self, now: float, *, answered: bool) -> None:
        """Count a request as ended; `answered` if its answer came by way of the log."""
        self._measure(now)
        self._ended += answered
        self.in_flight -= 1
        self._fewest = min(self._fewest, self.in_flight)

    def _measure(self, now: float) -> None:
        """Update the rate once a second, if the gate was loaded during the whole second."""
        elapsed = now - self._since
        if elapsed < _WINDOW_SECONDS:
            return
        if self._fewest >= _FLOOR // 2 and math.isfinite(elapsed):
            self._rate = (self._rate + self._ended / elapsed) / 2
        self._since, self._ended, self._fewest = now, 0, self.in_flight


@dataclass
class Turns:
    """FIFO queue that releases up to `at_once` tasks per iteration of the event loop.

    After each batch, `pause` iterations release none. The loop drives the queue, not the tasks, so
    a task that is cancelled in its turn blocks no other. `clock` returns monotonic seconds.
    """

    clock: Callable[[], float]
    at_once: int = _AT_ONCE
    pause: int = 0
    _length: int = 0  # tasks in the queue
    _rate: float = _FIRST_RATE  # tasks released per second
    _since: float = 0.0
    _passed: int = 0
    _waiting: "deque[asyncio.Future[None]]" = field(default_factory=deque)
    _taken: int = 0
    _paused: int = 0

    async def next(self, seconds: float) -> None:
        """Wait for a turn; raise `TimeoutError` after this many seconds."""
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
        """Return whether one more task in the queue would wait too long for its turn."""
        return self._length >= max(_AT_ONCE, self._rate * _LINE_SECONDS)

    def _measure(self) -> None:
        """Update the rate only while the queue is never empty; else it is the arrival rate."""
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
    """Admits or refuses PKIOperations; `clock` returns monotonic seconds."""

    clock: Callable[[], float]
    _in_flight: "Counter[str]" = field(default_factory=Counter)
    _gates: dict[str, Gate] = field(default_factory=dict)
    _overloaded_until: float = -math.inf

    def __post_init__(self) -> None:
        self._rates, self._turns = Rates(self.clock), Turns(self.clock)

    def check(self, limits: Limits, profile: str, address: str) -> None:
        """Raise `RefusedError`, before the body is read, if a limit is reached."""
        self._check_places(limits, profile, source_key(address))
        wait = self._rates.take(source_key(address), limits.rate, limits.burst)
        if wait:
            raise RefusedError(rate_limited(math.ceil(wait)))

    def is_overloaded(self) -> bool:
        """Return whether the gateway or a profile was full within the last second."""
        return self.clock() < self._overloaded_until

    def is_full(self, limits: Limits, profile: str) -> bool:
        """Return whether another request of a profile must be refused, whatever its source."""
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
        """Count a complete message as in flight, wait for its turn, and run the block.

        The task is cancelled when the client disconnects. Raises `RefusedError` if a limit is
        reached or the turn does not come in time.
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
