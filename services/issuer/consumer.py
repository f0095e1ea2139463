"""verdict -> authentic? -> ceilings -> serial -> CERTS record -> sign -> outcome: the one path."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.issuer.connectors.local import LocalCa
from services.issuer.profiles import beyond_ceilings, spki_sha256
from services.issuer.settings import Settings
from shared.bus.core import AppendConflictError, Bus, BusUnavailableError
from shared.bus.topology import enroll_stream, gateway_hints
from shared.events import (
    SUBJECT,
    CertificateIssued,
    CertificateRecorded,
    EnrollmentApproved,
    IssuanceFailed,
    Message,
    Stored,
    UnreadableEventError,
    authenticate,
    sign,
)
from shared.reasons import FAIL_INFO, Reason
from shared.subjects import Stage, parse_subject
from shared.telemetry import OUTCOMES, SECURITY_EVENTS

_log = structlog.get_logger()

Outcome = CertificateIssued | IssuanceFailed


@dataclass
class VerdictConsumer:
    """Writes exactly one outcome for every approving verdict of a known validator."""

    bus: Bus
    settings: Settings
    clock: Callable[[], float]

    async def handle(self, stored: Stored) -> None:
        """Issue what an authentic verdict approves."""
        verdict = self._verdict(stored)
        if verdict is not None:
            await self._record(stored, verdict, await self._outcome(stored, verdict))

    async def give_up(self, stored: Stored) -> None:
        """End a verdict that kills its worker."""
        verdict = self._verdict(stored)
        if verdict is not None:
            detail = "the certificate could not be issued"
            await self._record(stored, verdict, _failed(verdict, Reason.POISON, detail))

    def _verdict(self, stored: Stored) -> EnrollmentApproved | None:
        """The approval, if a known validator signed it for this subject; else nothing happens."""
        try:
            event = authenticate(stored, self.settings.validators, Stage.VERDICT)
        except UnreadableEventError as error:
            SECURITY_EVENTS.labels(Stage.VERDICT).inc()
            _log.error("verdict_not_authentic", subject=stored.subject, detail=str(error))
            return None
        return event if isinstance(event, EnrollmentApproved) else None

    async def _outcome(self, stored: Stored, verdict: EnrollmentApproved) -> Outcome:
        if self.clock() > verdict.valid_until:
            return _failed(verdict, Reason.VERDICT_EXPIRED, "the approval came too late to act on")
        ca = self.settings.issuers.get(verdict.template.issuer)
        if ca is None:
            return _failed(verdict, Reason.BEYOND_CEILING, "the verdict names no issuer here")
        problem = beyond_ceilings(verdict.template, ca.ceilings)
        if problem:
            return _failed(verdict, Reason.BEYOND_CEILING, problem)
        return await self._issue(stored, verdict, ca)

    async def _issue(self, stored: Stored, verdict: EnrollmentApproved, ca: LocalCa) -> Outcome:
        """Record the serial, then sign: no certificate exists that the log does not know of."""
        template = verdict.template
        serial = ca.serial(template)
        record = CertificateRecorded(
            request_sha256=verdict.request_sha256,
            enrollment=parse_subject(stored.subject)[0].prefix(),
            spki_sha256=spki_sha256(template.spki),
            subject=verdict.facts.subject,
            not_before=template.not_before,
            not_after=template.not_after,
        )
        subject = f"cert.{template.issuer}.{serial.hex()}.issued"
        message = sign(record, subject, verdict.request_sha256, self.settings.signer)
        try:
            await self.bus.append(subject, message)
        except AppendConflictError:
            _log.info("serial_recorded_before", serial=serial.hex())
        return CertificateIssued(
            request_sha256=verdict.request_sha256,
            issuer=template.issuer,
            serial=serial.hex(),
            certificate=ca.sign(template, serial),
            not_after=template.not_after,
        )

    async def _record(self, stored: Stored, verdict: EnrollmentApproved, outcome: Outcome) -> None:
        """Append the outcome; where one stands already, that one is announced, ours forgotten."""
        enrollment, _ = parse_subject(stored.subject)
        subject = enrollment.subject(Stage.OUTCOME)
        message = sign(outcome, subject, verdict.request_sha256, self.settings.signer)
        try:
            await self.bus.append(subject, message)
            reason = outcome.reason if isinstance(outcome, IssuanceFailed) else "issued"
            OUTCOMES.labels(verdict.template.issuer, reason).inc()
        except AppendConflictError:
            first = await self.bus.get_last(enroll_stream(enrollment.shard), subject)
            if first is None:
                raise BusUnavailableError("a conflicting outcome cannot be read yet") from None
            message = Message(first.payload, dict(first.headers))
        hint = Message(message.payload, message.headers | {SUBJECT: subject})
        await self.bus.hint(gateway_hints(verdict.gateway), hint)


def _failed(verdict: EnrollmentApproved, reason: Reason, detail: str) -> IssuanceFailed:
    return IssuanceFailed(
        request_sha256=verdict.request_sha256,
        reason=reason,
        fail_info=FAIL_INFO[reason],
        detail=detail,
    )
