"""A worker: a durable consumer's messages through a handler, each until it is settled."""

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
# Other replicas may serve what this one does not: they get the first chances.
_HANDED_BACK: Final = 4

Handler = Callable[[Stored], Awaitable[None]]


class NotServedError(Exception):
    """Raised for a message of a profile that this replica does not serve now.

    Another replica may, or this one after a reload: it is neither poison nor a fault.
    """

    def __init__(self, profile: str) -> None:
        """Name the profile."""
        super().__init__(profile)
        self.profile = profile


class DeferredError(Exception):
    """Raised for a message whose turn comes when another one is done: it is handed out later."""


@dataclass
class Worker:
    """Takes messages while it runs; `handle` may see one twice and must tolerate it.

    What a handler raises is one of four things. An outage (of the bus, or of the PKCS#11 token
    with the CA's key) is waited out in place and counts for nothing. `NotServedError` gives the
    message to other replicas first and then waits in place too, at most PROFILE_PLACES of one
    profile. `DeferredError` hands it out again when another one may be done; a handler that
    raises it knows such messages in `give_up`. Anything else, a permanent failure of the bus
    included, counts: the message is handed out again later, and after `MAX_DELIVERIES` times
    `give_up` ends it. So no message holds a place for ever. `durable` is the consumer, by default
    the role's own.
    """

    bus: Bus
    role: Role
    stream: str
    handle: Handler
    give_up: Handler
    concurrency: int
    durable: str = ""
    _running: dict[asyncio.Task[None], tuple[Delivery, float]] = field(default_factory=dict)
    _waiting: "Counter[str]" = field(default_factory=Counter)
    _consumption: Consumption | None = None
    _heart: asyncio.Task[None] | None = None
    _logged: float = 0.0

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

    async def resize(self, concurrency: int) -> None:
        """Have at most so many messages in hand from now on."""
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
                await self._outlast_outages(self._bury if poison else self._handle, delivery)
            await delivery.ack()
        except NotServedError as error:
            _log.info("profile_not_served", profile=error.profile, subject=subject)
            await delivery.nak(_NOT_SERVED_RETRY_SECONDS)
        except DeferredError:
            wait = _DEFERRED_SECONDS * 2.0 ** min(delivery.deliveries - 1, _MAX_DEFERRED_STEP)
            await delivery.nak(min(wait, _MAX_NAK_SECONDS))
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
        """One line now and then, however many messages wait for the same thing."""
        now = time.monotonic()
        if now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        about, detail = delivery.stored.subject, str(error)[:100]
        _log.warning(
            "dependency_unavailable", subject=about, detail=detail, waiting=len(self._running)
        )

    async def _not_served(self, error: NotServedError, delivery: Delivery) -> None:
        """Wait in place for a profile to be served; raise where others should get the message."""
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

    async def _bury(self, delivery: Delivery) -> None:
        """End the enrollment with a signed failure and leave a letter for people.

        Where even that fails for good, the letter alone tells of it: a message is not handed out
        for ever.
        """
        subject = delivery.stored.subject
        try:
            await self.give_up(delivery.stored)
        except (BusUnavailableError, TokenUnavailableError, NotServedError, DeferredError):
            raise
        except Exception as error:  # noqa: BLE001 - the end of the line: there is nobody to retry
            FAILURES.labels(self.role).inc()
            log_failure("give_up_failed", error, subject=subject)
        try:
            place = DEAD_LETTER.subject(
                role=self.role, stream=delivery.stream, sequence=delivery.stored.sequence
            )
            if not await append_first(self.bus, place, encode(self._letter(delivery))):
                return
        except BusRefusedError as error:
            _log.error("dead_letter_refused", subject=subject, detail=str(error))
        DEAD_LETTERS.labels(self.role).inc()
        _log.error("dead_letter", subject=subject, deliveries=delivery.deliveries)

    def _letter(self, delivery: Delivery) -> DeadLetter:
        stored = delivery.stored
        return DeadLetter(
            subject=shortened(stored.subject),
            stream=delivery.stream,
            sequence=stored.sequence,
            deliveries=delivery.deliveries,
            role=self.role.value,
        )

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


class Workers:
    """A role's workers: started for jobs that are new, left running for those that are not."""

    def __init__(self, bus: Bus, role: Role) -> None:
        """Begin with none."""
        self._bus, self._role = bus, role
        self._running: dict[tuple[str, str], Worker] = {}

    async def bring(self, jobs: Sequence[Job], concurrency: int) -> None:
        """Work on these jobs and no others, each on so many messages at once."""
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
        """End all of them, each with what it has in hand."""
        await asyncio.gather(*(worker.stop() for worker in self._running.values()))


@asynccontextmanager
async def working(
    bus: Bus, role: Role, jobs: Sequence[Job], concurrency: int
) -> AsyncIterator[Workers]:
    """Workers of a role, at first for these jobs."""
    workers = Workers(bus, role)
    await workers.bring(jobs, concurrency)
    yield workers
    await workers.stop()
