"""Retry commands: an operator orders the request of a dead letter appended as the next attempt."""

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
_COMMAND: Final = "ops.retry."


@dataclass
class Retrier:
    """Carries out retry commands announced by hints; after a lost hint the operator retries."""

    bus: Bus
    live: Live[Settings]
    gateway: str
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Start the command that a hint names. The command itself is read from the log."""
        del headers
        command = payload.decode("ascii", "replace")
        if subject == _HINT and command.startswith(_COMMAND):
            task = asyncio.create_task(self._on_command(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _on_command(self, command: str) -> None:
        try:
            await self.carry_out(command)
        except UnreadableEventError as error:
            report_forgery("command", command, error)
        except (BusError, ValueError) as error:
            log_failure("retry_failed", error, command=command)

    async def carry_out(self, command: str) -> None:
        """Append the ordered attempt unless it exists already.

        Raises `UnreadableEventError` for a forged command or an unreadable request, ValueError if
        the command or its request does not exist.
        """
        stored = await self.bus.get_last_or_leader(OPS, command)
        if stored is None:
            raise ValueError("retry command not found")
        retry = authenticate_as(RetryOrdered, stored, self.live.current.operators)
        enrollment = parse_prefix(retry.enrollment)
        request, event = await self._request(enrollment)
        sealed = enrollment.attempt if event.sealed_attempt is None else event.sealed_attempt
        again = msgspec.structs.replace(event, gateway=self.gateway, sealed_attempt=sealed)
        subject = enrollment.at(retry.attempt).subject(Stage.REQUEST)
        message = encode(again)
        message.headers.update(carried(request.headers))
        # On a conflict another gateway was first, or the device retried on its own.
        if await append_first(self.bus, subject, message):
            _log.info("enrollment_retried", subject=subject, operator=retry.operator)

    async def _request(self, enrollment: EnrollmentId) -> tuple[Stored, EnrollmentRequested]:
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        stored = await self.bus.get_last_or_leader(stream, subject)
        event = decode(stored.payload, stored.headers) if stored is not None else None
        if stored is None or not isinstance(event, EnrollmentRequested):
            raise ValueError("request not found")
        return stored, event
