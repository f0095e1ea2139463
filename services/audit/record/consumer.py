"""Recorders: store every event of every stream in the database, in order and without gaps.

Theory of operation. Each stream has a recorder.

* A durable consumer announces new events, but the database's own position and the log decide what
  is missing: at startup, after an error and every few seconds the recorder checks how far the log
  goes and reads what was not delivered (`_look`). A new or restored database is therefore complete
  before the service is ready, and a consumer that skips events does no harm.
* Events, the rows made from them and the position are written in one transaction (`write.store`),
  and acknowledged after its commit. After a crash they are redelivered, and what is already stored
  changes nothing.
* A commit costs more than a row, so events are gathered before one: for a moment after a quiet
  time, and for up to a second under steady load, unless a batch is full earlier.
* A log that was replaced by another one is detected by comparing what both hold (`agreement.py`):
  the recorder then writes nothing until an operator has run `scepstream audit reconcile`.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Engine

from services.audit.record.agreement import ReplacedLogError, compare
from services.audit.record.log_reader import read_some
from services.audit.record.write import EmptiedError, position, store
from shared.bus.core import Bus, Consumption, Delivery
from shared.log.envelope import Stored
from shared.observe.logs import log_failure
from shared.observe.metrics import EVENTS_STORED, FAILURES, HANDLING
from shared.observe.tracing import batch

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0
_MAX_RETRY_SECONDS: Final = 10.0
# How long events are gathered before a commit: the first ones after a quiet time, and the time
# between two commits under steady load.
_FIRST_SECONDS: Final = 0.1
_STEADY_SECONDS: Final = 1.0
# Events with this many bytes together are a full batch: forged ones may be large.
_FULL_BYTES: Final = 2 * 1024 * 1024
# With more events to record than this, the recorder is not current.
_FAR: Final = 1000


@dataclass
class StreamRecorder:
    """Stores one stream's events through a durable consumer.

    A message is acknowledged after its row is committed. `problem` says why the database may lack
    events of the log, "" if it is current.
    """

    bus: Bus
    engine: Engine
    stream: str
    batch: int
    problem: str = "not started"
    _waiting: list[Delivery] = field(default_factory=list)
    _bytes: int = 0  # of the waiting payloads
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _full: asyncio.Event = field(default_factory=asyncio.Event)
    _consumption: Consumption | None = None
    _task: asyncio.Task[None] | None = None
    _next_look: float = 0.0
    _reported: str = ""
    _done: int | None = None  # the last sequence that this process has recorded
    _committed: float = float("-inf")  # loop time of the last commit

    async def start(self) -> None:
        """Start recording."""
        self._consumption = await self.bus.consume(
            self.stream, "audit", self._on_delivery, self.batch * 2
        )
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; what has arrived but is not committed is redelivered to the next recorder."""
        if self._consumption is not None:
            await self._consumption.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._bytes += len(delivery.stored.payload)
        self._arrived.set()
        if self._is_full():
            self._full.set()

    def _is_full(self) -> bool:
        return len(self._waiting) >= self.batch or self._bytes >= _FULL_BYTES

    async def _run(self) -> None:
        gap = _RETRY_SECONDS
        while True:
            try:
                await self._step()
                gap = _RETRY_SECONDS
            except ReplacedLogError as error:
                self._wait_for(str(error))
                await asyncio.sleep(gap)
            except Exception as error:  # noqa: BLE001 - a bug must not stop recording silently
                self._failed(error)
                await asyncio.sleep(gap)
                gap = min(gap * 2, _MAX_RETRY_SECONDS)

    def _failed(self, error: Exception) -> None:
        FAILURES.labels("audit").inc()
        problem = f"retrying after {type(error).__name__}"
        if problem != self._reported:
            log_failure("audit_waiting", error, stream=self.stream)
        self.problem = self._reported = problem

    def _wait_for(self, problem: str) -> None:
        if problem != self._reported:
            _log.error("log_replaced", stream=self.stream, detail=problem)
        self.problem = self._reported = problem

    async def _step(self) -> None:
        """Look if it is time, then record what arrives until the next look."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next_look or self.problem:
            await self._look()
            self._next_look = loop.time() + _LOOK_SECONDS
        self.problem = self._reported = ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_look):
                await self._arrived.wait()
        await self._gather(loop)
        self._arrived.clear()
        while self._waiting:
            await self._record(self._waiting[: self.batch])
            self._committed = loop.time()

    async def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let more events arrive before the next commit, at most a batch."""
        until = max(loop.time() + _FIRST_SECONDS, self._committed + _STEADY_SECONDS)
        while self._waiting and not self._is_full() and (left := until - loop.time()) > 0:
            self._full.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._full.wait()

    async def _look(self) -> None:
        """Store what the log has and the database lacks, whatever the consumer delivered."""
        agreement = await compare(self.bus, self.engine, self.stream)
        if agreement.problem:
            raise ReplacedLogError(
                f"{agreement.problem}; run `scepstream audit verify`, then `audit reconcile`"
            )
        known = {d.stored.sequence: d.stored for d in self._waiting}
        behind = agreement.last - agreement.recorded
        if behind > _FAR:
            _log.info("record_behind", stream=self.stream, events=behind)
        self._done = agreement.recorded
        await self._store_to(agreement.last, known)

    async def _record(self, deliveries: list[Delivery]) -> None:
        """Commit a batch, then acknowledge everything up to its last message."""
        known = {d.stored.sequence: d.stored for d in deliveries}
        await self._store_to(max(known), known)
        await deliveries[-1].ack(len(deliveries))
        del self._waiting[: len(deliveries)]
        self._bytes -= sum(len(delivery.stored.payload) for delivery in deliveries)

    async def _store_to(self, last: int, known: dict[int, Stored]) -> None:
        """Store everything from the position to `last`; read what is not `known` from the log."""
        while True:
            done = self._done
            if done is None or not _follows(done, last, known):
                done = await asyncio.to_thread(position, self.engine, self.stream)
            try:
                return await self._store_after(done, last, known)
            except EmptiedError as error:  # by `audit reconcile`, or a restored backup
                self._done = None
                _log.warning("record_emptied", stream=self.stream, detail=str(error))

    async def _store_after(self, done: int, last: int, known: dict[int, Stored]) -> None:
        for first in range(done + 1, last + 1, self.batch):
            if last - first > _FAR:
                self.problem = f"recorded {first - 1} of {last} events"
            numbers = range(first, min(first + self.batch, last + 1))
            there = await self._messages(numbers, known)
            traced = batch("audit record", (message.headers for message in there))
            with traced, HANDLING.labels("audit").time():
                stored = await asyncio.to_thread(store, self.engine, self.stream, there, after=done)
            done = self._done = there[-1].sequence if there else done
            EVENTS_STORED.labels(self.stream).inc(stored)

    async def _messages(self, numbers: range, known: dict[int, Stored]) -> list[Stored]:
        """Return the messages at these sequences; log an error for those that the log lacks."""
        unknown = [number for number in numbers if number not in known]
        found = known | await read_some(self.bus, self.stream, unknown)
        missing = [number for number in unknown if number not in found]
        if missing:
            _log.error(
                "sequences_missing",
                stream=self.stream,
                first=missing[0],
                last=missing[-1],
                count=len(missing),
                sequences=missing[:20],
            )
        return [found[number] for number in numbers if number in found]


def _follows(done: int, last: int, known: dict[int, Stored]) -> bool:
    """Return whether `known` has all that follows `done`, so that the database need not be asked.

    If there is a gap, another replica may have recorded what is missing. A redelivered message does
    not follow either: it is acknowledged only if the database still has it.
    """
    return done < last and all(number in known for number in range(done + 1, last + 1))
