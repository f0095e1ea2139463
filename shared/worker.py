"""A worker: a durable consumer's messages through a handler, each until it is settled."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.bus.core import AppendConflictError, Bus, BusUnavailableError, Consumption, Delivery
from shared.bus.topology import ACK_WAIT_SECONDS, Role
from shared.events import DeadLetter
from shared.process import DRAIN_SECONDS, log_failure
from shared.stored import Stored, encode
from shared.telemetry import DEAD_LETTERS, FAILURES, HANDLING, IN_FLIGHT, REDELIVERIES
from shared.tokens import TokenUnavailableError
from shared.tracing import annotate, span

_log = structlog.get_logger()
MAX_DELIVERIES: Final = 12
_RETRY_SECONDS: Final = 0.5
_MAX_NAK_SECONDS: Final = 30.0

Handler = Callable[[Stored], Awaitable[None]]


@dataclass
class Worker:
    """Takes messages while it runs; `handle` may see one twice and must bear it.

    `give_up` ends what was handed out more than `MAX_DELIVERIES` times: a message that kills
    its worker. An outage of the bus, or of the token with the CA's key, is waited out in place
    and counts for nothing. `durable` is the consumer, by default the role's own.
    """

    bus: Bus
    role: Role
    stream: str
    handle: Handler
    give_up: Handler
    concurrency: int
    durable: str = ""
    _running: dict[asyncio.Task[None], tuple[Delivery, float]] = field(default_factory=dict)
    _consumption: Consumption | None = None
    _heart: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to pull; what has not happened yet is shown as 0."""
        for counter in (DEAD_LETTERS, FAILURES, REDELIVERIES):
            counter.labels(self.role)
        self._consumption = await self.bus.consume(
            self.stream, self.durable or self.role.value, self._on_delivery, self.concurrency
        )
        self._heart = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Pull no more; finish what is in hand, within the drain time."""
        if self._consumption is not None:
            await self._consumption.stop()
        if self._running:
            await asyncio.wait(list(self._running), timeout=DRAIN_SECONDS)
        if self._heart is not None:
            self._heart.cancel()

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._process(delivery))
        self._running[task] = (delivery, time.monotonic())
        task.add_done_callback(self._forget)
        IN_FLIGHT.labels(self.role).inc()

    def _forget(self, task: asyncio.Task[None]) -> None:
        _, started = self._running.pop(task)
        IN_FLIGHT.labels(self.role).dec()
        HANDLING.labels(self.role).observe(time.monotonic() - started)

    async def _process(self, delivery: Delivery) -> None:
        if delivery.deliveries > 1:
            REDELIVERIES.labels(self.role).inc()
        poison = delivery.deliveries > MAX_DELIVERIES
        subject = delivery.stored.subject
        try:
            step = f"{self.role} {subject.rpartition('.')[2]}"
            with span(step, "consumer", delivery.stored.headers):
                annotate(subject=subject, deliveries=delivery.deliveries)
                await self._outlast_outages(self._bury if poison else self._handle, delivery)
            await delivery.ack()
        except Exception as error:  # noqa: BLE001 - a bug must cost one message, not the worker
            FAILURES.labels(self.role).inc()
            log_failure("handler_failed", error, subject=subject)
            await delivery.nak(min(2.0**delivery.deliveries, _MAX_NAK_SECONDS))

    async def _outlast_outages(
        self, step: Callable[[Delivery], Awaitable[None]], delivery: Delivery
    ) -> None:
        while True:
            try:
                return await step(delivery)
            except (BusUnavailableError, TokenUnavailableError) as error:
                _log.info(
                    "dependency_away", subject=delivery.stored.subject, detail=str(error)[:100]
                )
                await asyncio.sleep(_RETRY_SECONDS)

    async def _handle(self, delivery: Delivery) -> None:
        await self.handle(delivery.stored)

    async def _bury(self, delivery: Delivery) -> None:
        """End the enrollment with a signed failure and leave a letter for people."""
        await self.give_up(delivery.stored)
        stored = delivery.stored
        letter = DeadLetter(
            subject=stored.subject,
            stream=delivery.stream,
            sequence=stored.sequence,
            deliveries=delivery.deliveries,
            role=self.role.value,
        )
        subject = f"dead.{self.role}.{delivery.stream}.{stored.sequence}"
        try:
            await self.bus.append(subject, encode(letter))
        except AppendConflictError:
            return
        DEAD_LETTERS.labels(self.role).inc()
        _log.error("dead_letter", subject=stored.subject, deliveries=delivery.deliveries)

    async def _beat(self) -> None:
        """Tell the server of what takes long, so that it is not handed out a second time."""
        while True:
            await asyncio.sleep(ACK_WAIT_SECONDS / 3)
            before = time.monotonic() - ACK_WAIT_SECONDS / 3
            for delivery, started in list(self._running.values()):
                if started < before:
                    await delivery.in_progress()


@dataclass(frozen=True)
class Job:
    """One stream's work: its handlers are `handle` and `give_up` of a worker."""

    stream: str
    handle: Handler
    give_up: Handler
    durable: str = ""


@asynccontextmanager
async def working(
    bus: Bus, role: Role, jobs: Sequence[Job], concurrency: int
) -> AsyncIterator[None]:
    """Workers of a role for these jobs."""
    workers = [
        Worker(bus, role, job.stream, job.handle, job.give_up, concurrency, job.durable)
        for job in jobs
    ]
    for worker in workers:
        await worker.start()
    yield
    await asyncio.gather(*(worker.stop() for worker in workers))
