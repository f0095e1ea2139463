"""Every event of every stream into the database, in order, without a gap, in batches."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Engine

from services.audit.database import position, store
from shared.bus.core import Bus, Consumption, Delivery
from shared.process import log_failure
from shared.stored import Stored
from shared.telemetry import EVENTS_STORED, FAILURES, HANDLING
from shared.tracing import batch

_log = structlog.get_logger()
_RETRY_SECONDS: Final = 1.0
# A commit costs more than a row: at low load events are gathered this long before one.
_GATHER_SECONDS: Final = 0.2


@dataclass
class StreamRecorder:
    """One stream's durable consumer into `events`.

    The database's own position decides what is missing: a message is acknowledged after its row
    is committed, and what lies between the position and the next message is read by sequence.
    `waits` says that what came last could not be stored yet.
    """

    bus: Bus
    engine: Engine
    stream: str
    batch: int
    waits: bool = False
    _waiting: list[Delivery] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _consumption: Consumption | None = None
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to record."""
        self._consumption = await self.bus.consume(
            self.stream, "audit", self._on_delivery, self.batch * 2
        )
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop: what has arrived and is not committed is delivered again to the next one."""
        if self._consumption is not None:
            await self._consumption.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_delivery(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._arrived.set()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self.batch:
                await asyncio.sleep(_GATHER_SECONDS)
            self._arrived.clear()
            while self._waiting:
                batch = self._waiting[: self.batch]
                await self._record(batch)
                del self._waiting[: len(batch)]

    async def _record(self, batch: list[Delivery]) -> None:
        """Commit a batch, then acknowledge up to its last; wait out whatever is away."""
        while True:
            try:
                await self._store([delivery.stored for delivery in batch])
                self.waits = False
                return await batch[-1].ack(len(batch))
            except Exception as error:  # noqa: BLE001 - a bug must not end the record unheard
                log_failure("audit_waits", error, stream=self.stream)
                FAILURES.labels("audit").inc()
                self.waits = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _store(self, messages: list[Stored]) -> None:
        done = await asyncio.to_thread(position, self.engine, self.stream)
        fresh = {m.sequence: m for m in messages if m.sequence > done}
        last = max(fresh, default=done)
        for first in range(done + 1, last + 1, self.batch):
            found = [
                fresh.get(sequence) or await self._missed(sequence)
                for sequence in range(first, min(first + self.batch, last + 1))
            ]
            there = [message for message in found if message is not None]
            traced = batch("audit record", (message.headers for message in there))
            with traced, HANDLING.labels("audit").time():
                stored = await asyncio.to_thread(store, self.engine, self.stream, there)
            EVENTS_STORED.labels(self.stream).inc(stored)

    async def _missed(self, sequence: int) -> Stored | None:
        """What was acknowledged once but is not in this database: a new one, or a restored one."""
        message = await self.bus.get_sequence(self.stream, sequence)
        if message is None:
            _log.error("sequence_missing", stream=self.stream, sequence=sequence)
        return message
