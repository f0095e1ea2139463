"""Appends holds and verdicts, each once, and hints the waiting gateway."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import structlog

from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import append_first, read_stage
from shared.bus.topology import gateway_hints
from shared.log.envelope import (
    SUBJECT,
    EventSigner,
    Message,
    Stored,
    Trusted,
    UnreadableEventError,
    decode,
    sign,
)
from shared.log.events.enrollment import (
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    EnrollmentRequested,
)
from shared.log.reasons import CHALLENGE_REASONS
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId
from shared.observe.metrics import CHALLENGES, VERDICTS

_log = structlog.get_logger()

Verdict = EnrollmentApproved | EnrollmentRejected


@dataclass(frozen=True)
class Recorder:
    """Appends this role's events about one request; the first event on a subject counts."""

    bus: Bus
    signer: EventSigner
    trusted: Trusted
    profiles: Collection[str] = ()

    async def hold(self, enrollment: EnrollmentId, request: Stored, held: EnrollmentHeld) -> None:
        """Append the hold and hint the gateway, so that the device gets PENDING at once."""
        subject = enrollment.subject(Stage.HOLD)
        message = sign(held, subject, self.signer)
        if await append_first(self.bus, subject, message):
            VERDICTS.labels(self._label(enrollment), "held").inc()
            await self._hint(request, subject, message)

    async def verdict(self, enrollment: EnrollmentId, request: Stored, verdict: Verdict) -> None:
        """Append the verdict; if one is stored already, continue with the stored one."""
        subject = enrollment.subject(Stage.VERDICT)
        message = sign(verdict, subject, self.signer)
        if await append_first(self.bus, subject, message):
            _count(self._label(enrollment), verdict)
        else:
            found = await self._first_verdict(enrollment, request)
            if found is None:
                return
            verdict, message = found
        if isinstance(verdict, EnrollmentRejected):
            await self._hint(request, subject, message)

    def _label(self, enrollment: EnrollmentId) -> str:
        """Return the profile if it is configured, else "none".

        A gateway can write any profile into a subject, and a metric series is never removed.
        """
        return enrollment.profile if enrollment.profile in self.profiles else "none"

    async def _first_verdict(
        self, enrollment: EnrollmentId, request: Stored
    ) -> tuple[Verdict, Message] | None:
        """Return the stored verdict and its message; None if no validator signed it."""
        subject = enrollment.subject(Stage.VERDICT)
        stored = await self.bus.get_last_or_leader(enroll_stream(enrollment.shard), subject)
        if stored is None:
            raise BusUnavailableError("the conflicting verdict is not readable yet")
        event = read_stage(stored, self.trusted, Stage.VERDICT, request.sha256())
        if event is None:
            return None
        if not isinstance(event, EnrollmentApproved | EnrollmentRejected):
            return None
        return event, Message(stored.payload, dict(stored.headers))

    async def _hint(self, request: Stored, subject: str, message: Message) -> None:
        """Send the event to the waiting gateway; a lost hint delays its reply by a second."""
        try:
            event = decode(request.payload, request.headers)
        except UnreadableEventError:
            return
        if isinstance(event, EnrollmentRequested):
            hint = Message(message.payload, message.headers | {SUBJECT: subject})
            await self.bus.hint(gateway_hints(event.gateway), hint)


def count_from_zero(accepted: Mapping[str, Collection[str]]) -> None:
    """Export every refusal counter at 0, before the first refusal.

    `accepted` maps each profile's name to the kinds of challenges that it accepts.
    """
    for profile, kinds in accepted.items():
        for kind in kinds:
            for reason in CHALLENGE_REASONS:
                CHALLENGES.labels(profile, kind, reason)


def _count(profile: str, verdict: Verdict) -> None:
    """Count a verdict that this replica appended, and the challenge's result if it was refused.

    A challenge's success is counted later, by the issuer.
    """
    if isinstance(verdict, EnrollmentApproved):
        VERDICTS.labels(profile, "approved").inc()
        return
    VERDICTS.labels(profile, verdict.reason).inc()
    if verdict.reason in CHALLENGE_REASONS and verdict.facts is not None:
        CHALLENGES.labels(profile, verdict.facts.challenge, verdict.reason).inc()
