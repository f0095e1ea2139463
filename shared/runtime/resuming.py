"""Commands to resume an attempt whose message no consumer delivers any more.

A role's consumer can skip a message for good, for example if a block of its stream is damaged or
the consumer was recreated after that message. The audit service then commands the role to handle
the stored message again. The handler is the one for deliveries and may see a message any number of
times: the first verdict and the first outcome count.
See docs/decisions/0034-the-log-decides-what-is-left-to-do.md.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from shared.bus.core import Bus
from shared.log.envelope import Stored, Trusted, UnreadableEventError, authenticate_as
from shared.log.events.commands import ResumeOrdered
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, parse_prefix, resume_command
from shared.observe.metrics import SECURITY_EVENTS
from shared.runtime.worker import DeferredError

_log = structlog.get_logger()
# The messages that lead to a stage, the latest first. Only an operator ends a hold.
_LEADING: Final[dict[Stage, tuple[Stage, ...]]] = {
    Stage.VERDICT: (Stage.DECISION, Stage.HOLD, Stage.REQUEST),
    Stage.OUTCOME: (Stage.VERDICT,),
    Stage.CONFIRMATION: (Stage.OUTCOME,),
}


class Consumer(Protocol):
    """A role's handlers of a delivery."""

    async def handle(self, stored: Stored) -> None:
        """Handle a message."""

    async def give_up(self, stored: Stored) -> bool | None:
        """End the attempt with a signed failure, unless it can be handled after all."""


@dataclass
class ResumeConsumer:
    """Carries out resume commands for the missing `stage` that this role writes; ignores others.

    `consumer` has the role's own handlers; `trusted` returns the keys that may sign commands.
    `follows` says that there is something left to do after the stage, which a delivery of the
    command after a kill must still do.
    """

    bus: Bus
    stage: Stage
    consumer: Consumer
    trusted: Callable[[], Trusted]
    follows: bool = False

    async def handle(self, stored: Stored) -> None:
        """Handle the attempt's message again, or end the attempt if the command says so."""
        ordered = self._ordered(stored)
        if ordered is not None:
            command, enrollment = ordered
            consumer = self.consumer
            await self._on(
                enrollment, consumer.give_up if command.give_up else consumer.handle, command.number
            )

    async def give_up(self, stored: Stored) -> None:
        """End the attempt of a command that kills its worker or always fails."""
        ordered = self._ordered(stored)
        if ordered is not None:
            await self._on(ordered[1], self.consumer.give_up, ordered[0].number)

    def _ordered(self, stored: Stored) -> tuple[ResumeOrdered, EnrollmentId] | None:
        """Return an authentic command for this stage and its attempt, or None for all others."""
        try:
            command = authenticate_as(ResumeOrdered, stored, self.trusted())
            enrollment = parse_prefix(command.enrollment)
        except (UnreadableEventError, ValueError) as error:
            _report(stored, str(error))
            return None
        if stored.subject != resume_command(enrollment, command.number):
            _report(stored, "the command is for another attempt")
            return None
        return (command, enrollment) if command.stage is self.stage else None

    async def _on(
        self, enrollment: EnrollmentId, act: Callable[[Stored], Awaitable[object]], number: int
    ) -> None:
        """Call `act` with the attempt's message, unless the log has the stage and that is all."""
        stream, about = enroll_stream(enrollment.shard), enrollment.prefix()
        place = enrollment.subject(self.stage)
        if not self.follows and await self.bus.get_last(stream, place) is not None:
            return
        message = await leading(self.bus, enrollment, self.stage)
        if message is None:
            _log.error("resume_without_message", enrollment=about, stage=self.stage)
            return
        try:
            await act(message)
        except DeferredError:  # it waits for another message; the next command tries again
            _log.info("resume_deferred", enrollment=about, number=number)
            return
        _log.info("attempt_resumed", enrollment=about, stage=self.stage, number=number)


async def leading(bus: Bus, enrollment: EnrollmentId, stage: Stage) -> Stored | None:
    """Return the message whose handling leads to this stage, or None if nothing can be handled."""
    stream = enroll_stream(enrollment.shard)
    for before in _LEADING[stage]:
        message = await bus.get_last_or_leader(stream, enrollment.subject(before))
        if message is not None:
            return None if before is Stage.HOLD else message
    return None


def _report(stored: Stored, detail: str) -> None:
    SECURITY_EVENTS.labels("command").inc()
    _log.error("event_not_authentic", about=stored.subject, detail=detail)
