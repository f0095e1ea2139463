"""Workers that pass a durable consumer's messages to a handler until each is settled."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.bus.core import (
    Bus,
    BusRefusedError,
    BusUnavailableError,
    Consumption,
    Delivery,
)
from shared.bus.log import append_first
from shared.bus.topology import ACK_WAIT_SECONDS
from shared.config.pkcs11 import TokenUnavailableError
from shared.limits import PROFILE_PLACES, shortened
from shared.log.catalog import DEAD_LETTER
from shared.log.envelope import Stored, encode
from shared.log.events.state import DeadLetter
from shared.log.roles import Role
from shared.observe.logs import log_failure
from shared.observe.metrics import DEAD_LETTERS, FAILURES, HANDLING, IN_FLIGHT, REDELIVERIES
from shared.observe.tracing import annotate, span
from shared.runtime.process import DRAIN_SECONDS

_log = structlog.get_logger()
MAX_DELIVERIES: Final = 12
_RETRY_SECONDS: Final = 0.5
_NOT_SERVED_RETRY_SECONDS: Final = 5.0
_MAX_NAK_SECONDS: Final = 30.0
_DEFERRED_SECONDS: Final = 0.25
_MAX_DEFERRED_STEP: Final = 10
_LOG_SECONDS: Final = 10.0
# Deliveries that are handed back first, since other replicas may serve the profile.
_HANDED_BACK: Final = 4

Handler = Callable[[Stored], Awaitable[None]]
# Returns True if the message was handled after all, so that there is nothing to report.
LastHandler = Callable[[Stored], Awaitable[bool | None]]


class NotServedError(Exception):
    """Raised for a message of a profile that this replica does not serve now.

    Another replica may serve it, or this one after a reload, so it is neither poison nor a failure.
    """

    def __init__(self, profile: str) -> None:
        """Record the profile's name."""
        super().__init__(profile)
        self.profile = profile


class DeferredError(Exception):
    """Raised for a message that must wait until another one is done; it is redelivered later.

    `wait`, if given, is after how many seconds; otherwise the worker waits longer each time.
    """

    def __init__(self, about: str = "", wait: float | None = None) -> None:
        """Record what is waited for, and for how long."""
        super().__init__(about)
        self.wait = wait


@dataclass
class Worker:
    """Handles a stream's messages, up to `concurrency` at once.

    `handle` may see a message twice and must tolerate it. Its exceptions are of four kinds:

    * An outage (of the bus, or of the PKCS#11 token with the CA's key) is waited out in place and
      does not count as a failure.
    * `NotServedError` hands the message back to other replicas at first. Later deliveries wait in
      place too, at most PROFILE_PLACES per profile.
    * `DeferredError` has the message redelivered when another one may be done. A handler that
      raises it must recognize such messages in `give_up`.
    * Anything else, including a permanent refusal by the bus, is a failure: the message is
      redelivered later, and after `MAX_DELIVERIES` deliveries `give_up` ends it.

    So no message occupies a worker forever. `durable` is the consumer, by default the role's own.
    """

    bus: Bus
    role: Role
    stream: str
    handle: Handler
    give_up: LastHandler
    concurrency: int
    durable: str = ""
    _running: dict[asyncio.Task[None], tuple[Delivery, float]] = field(default_factory=dict)
    _waiting: "Counter[str]" = field(default_factory=Counter)
    _consumption: Consumption | None = None
    _heart: asyncio.Task[None] | None = None
    _logged: float = 0.0

    async def start(self) -> None:
        """Start to pull; initialize this role's counters, so that metrics show them as 0."""
        for counter in (DEAD_LETTERS, FAILURES, REDELIVERIES):
            counter.labels(self.role)
        self._consumption = await self.bus.consume(
            self.stream, self.durable or self.role.value, self._on_delivery, self.concurrency
        )
        self._heart = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Stop pulling and finish the messages in progress, within the drain time."""
        if self._consumption is not None:
            await self._consumption.stop()
        if self._running:
            await asyncio.wait(list(self._running), timeout=DRAIN_SECONDS)
        if self._heart is not None:
            self._heart.cancel()

    async def resize(self, concurrency: int) -> None:
        """Handle at most `concurrency` messages at once from now on."""
        before, self.concurrency = self.concurrency, concurrency
        if self._consumption is not None and concurrency != before:
            await self._consumption.resize(concurrency)

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
                await self._outlast_outages(self._dead_letter if poison else self._handle, delivery)
            await delivery.ack()
        except NotServedError as error:
            _log.info("profile_not_served", profile=error.profile, subject=subject)
            await delivery.nak(_NOT_SERVED_RETRY_SECONDS)
        except DeferredError as error:
            wait = _DEFERRED_SECONDS * 2.0 ** min(delivery.deliveries - 1, _MAX_DEFERRED_STEP)
            await delivery.nak(min(wait, _MAX_NAK_SECONDS) if error.wait is None else error.wait)
        except Exception as error:  # noqa: BLE001 - a bug must cost one message, not the worker
            FAILURES.labels(self.role).inc()
            log_failure("message_failed", error, subject=subject)
            await delivery.nak(min(2.0**delivery.deliveries, _MAX_NAK_SECONDS))

    async def _outlast_outages(
        self, step: Callable[[Delivery], Awaitable[None]], delivery: Delivery
    ) -> None:
        while True:
            try:
                return await step(delivery)
            except (BusUnavailableError, TokenUnavailableError) as error:
                self._log_outage(delivery, error)
                await asyncio.sleep(_RETRY_SECONDS)
            except NotServedError as error:
                await self._not_served(error, delivery)

    def _log_outage(self, delivery: Delivery, error: Exception) -> None:
        """Log at most one line every ten seconds, however many messages wait for the same thing."""
        now = time.monotonic()
        if now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        about, detail = delivery.stored.subject, str(error)[:100]
        _log.warning(
            "dependency_unavailable", subject=about, detail=detail, waiting=len(self._running)
        )

    async def _not_served(self, error: NotServedError, delivery: Delivery) -> None:
        """Wait in place for a profile to be served; raise `error` to hand the message back."""
        full = self._waiting[error.profile] >= PROFILE_PLACES
        if delivery.deliveries <= _HANDED_BACK or full:
            raise error
        self._waiting[error.profile] += 1
        try:
            await asyncio.sleep(_NOT_SERVED_RETRY_SECONDS)
        finally:
            self._waiting[error.profile] -= 1

    async def _handle(self, delivery: Delivery) -> None:
        await self.handle(delivery.stored)

    async def _dead_letter(self, delivery: Delivery) -> None:
        """End the enrollment with a signed failure and append a dead letter for operators.

        If even that fails permanently, only the dead letter records it: a message is not
        redelivered forever.
        """
        subject = delivery.stored.subject
        try:
            if await self.give_up(delivery.stored):
                return
        except (BusUnavailableError, TokenUnavailableError, NotServedError, DeferredError):
            raise
        except Exception as error:  # noqa: BLE001 - the last attempt: nothing is left to retry it
            FAILURES.labels(self.role).inc()
            log_failure("give_up_failed", error, subject=subject)
        try:
            place = DEAD_LETTER.subject(
                role=self.role, stream=delivery.stream, sequence=delivery.stored.sequence
            )
            if not await append_first(self.bus, place, encode(self._dead_letter_event(delivery))):
                return
        except BusRefusedError as error:
            _log.error("dead_letter_refused", subject=subject, detail=str(error))
        DEAD_LETTERS.labels(self.role).inc()
        _log.error("dead_letter", subject=subject, deliveries=delivery.deliveries)

    def _dead_letter_event(self, delivery: Delivery) -> DeadLetter:
        stored = delivery.stored
        return DeadLetter(
            subject=shortened(stored.subject),
            stream=delivery.stream,
            sequence=stored.sequence,
            deliveries=delivery.deliveries,
            role=self.role.value,
        )

    async def _beat(self) -> None:
        """Report long-running messages to the server, so that it does not redeliver them."""
        while True:
            await asyncio.sleep(ACK_WAIT_SECONDS / 3)
            before = time.monotonic() - ACK_WAIT_SECONDS / 3
            for delivery, started in list(self._running.values()):
                if started < before:
                    await delivery.in_progress()


@dataclass(frozen=True)
class Job:
    """The work on one stream: the stream, handlers and consumer of a `Worker`."""

    stream: str
    handle: Handler
    give_up: LastHandler
    durable: str = ""


class Workers:
    """A role's workers, one per job."""

    def __init__(self, bus: Bus, role: Role) -> None:
        """Start without workers."""
        self._bus, self._role = bus, role
        self._running: dict[tuple[str, str], Worker] = {}

    async def reconcile(self, jobs: Sequence[Job], concurrency: int) -> None:
        """Make these jobs the only ones, with `concurrency` messages each at once.

        Starts workers for new jobs, keeps those of known jobs and stops the others.
        """
        wanted = {(job.stream, job.durable): job for job in jobs}
        gone = [self._running.pop(key) for key in self._running.keys() - wanted.keys()]
        try:
            for key, job in wanted.items():
                await self._work(key, job, concurrency)
        finally:
            await asyncio.gather(*(worker.stop() for worker in gone))

    async def _work(self, key: tuple[str, str], job: Job, concurrency: int) -> None:
        if key in self._running:
            await self._running[key].resize(concurrency)
            return
        worker = Worker(
            self._bus, self._role, job.stream, job.handle, job.give_up, concurrency, job.durable
        )
        await worker.start()
        self._running[key] = worker

    async def stop(self) -> None:
        """Stop all workers; each finishes its messages in progress."""
        await asyncio.gather(*(worker.stop() for worker in self._running.values()))


@asynccontextmanager
async def working(
    bus: Bus, role: Role, jobs: Sequence[Job], concurrency: int
) -> AsyncIterator[Workers]:
    """Run a role's workers during a block, at first for these jobs."""
    workers = Workers(bus, role)
    try:
        await workers.reconcile(jobs, concurrency)
        yield workers
    finally:
        await workers.stop()
