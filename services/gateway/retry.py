"""An operator's command to retry what a worker gave up on: its request as the next attempt."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec.structs
import structlog

from services.gateway.settings import Settings
from shared.bus.core import Bus, BusError
from shared.bus.log import append_first, report_forgery
from shared.log.envelope import Stored, UnreadableEventError, authenticate_as, decode, encode
from shared.log.events.commands import RetryOrdered
from shared.log.events.enrollment import EnrollmentRequested
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.log.subjects import EnrollmentId, parse_prefix
from shared.observe.logs import log_failure
from shared.observe.tracing import carried
from shared.runtime.live import Live

_log = structlog.get_logger()
_HINT: Final = "command.retry"
_ORDER: Final = "ops.retry."


@dataclass
class Retrier:
    """Obeys orders it hears of; one that was not heard stands on the log and is given again."""

    bus: Bus
    live: Live[Settings]
    gateway: str
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """A hint names an order, which is read from the log."""
        del headers
        order = payload.decode("ascii", "replace")
        if subject == _HINT and order.startswith(_ORDER):
            task = asyncio.create_task(self._heard(order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _heard(self, order: str) -> None:
        try:
            await self.obey(order)
        except UnreadableEventError as error:
            report_forgery("command", order, error)
        except (BusError, ValueError) as error:
            log_failure("retry_failed", error, order=order)

    async def obey(self, order: str) -> None:
        """Append the next attempt, unless it is there; `UnreadableEventError` for a forged order.

        ValueError where the command or its request is not genuine.
        """
        stored = await self.bus.get_last_or_leader(OPS, order)
        if stored is None:
            raise ValueError("no such order")
        wanted = authenticate_as(RetryOrdered, stored, self.live.current.operators)
        enrollment = parse_prefix(wanted.enrollment)
        request, event = await self._request(enrollment)
        sealed = enrollment.attempt if event.sealed_attempt is None else event.sealed_attempt
        again = msgspec.structs.replace(event, gateway=self.gateway, sealed_attempt=sealed)
        subject = enrollment.at(wanted.attempt).subject(Stage.REQUEST)
        message = encode(again)
        message.headers.update(carried(request.headers))
        # Else another gateway was first, or the device asked again by itself.
        if await append_first(self.bus, subject, message):
            _log.info("enrollment_retried", subject=subject, operator=wanted.operator)

    async def _request(self, enrollment: EnrollmentId) -> tuple[Stored, EnrollmentRequested]:
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        stored = await self.bus.get_last_or_leader(stream, subject)
        event = decode(stored.payload, stored.headers) if stored is not None else None
        if stored is None or not isinstance(event, EnrollmentRequested):
            raise ValueError("no such request")
        return stored, event
