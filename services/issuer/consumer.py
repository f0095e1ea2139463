"""verdict -> authentic? -> ceilings -> serial -> CERTS record -> sign -> outcome: the one path."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from services.issuer.ceilings import Times, beyond_ceilings, ended, names_sha256, out_of_time
from services.issuer.connectors.local import LocalCa
from services.issuer.evidence import unsupported
from services.issuer.readable import unreadable
from services.issuer.settings import Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import Log, append_first, report_forgery
from shared.bus.series import Series
from shared.bus.topology import gateway_hints
from shared.log.envelope import (
    SUBJECT,
    Message,
    Stored,
    UnreadableEventError,
    authenticate,
    authenticate_as,
    sign,
)
from shared.log.events.certificates import CertificateRecorded, KeyCompromised
from shared.log.events.enrollment import CertificateIssued, EnrollmentApproved, IssuanceFailed
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import (
    certificate_issued,
    key_compromised,
    key_issued,
    parse_prefix,
    parse_subject,
    serial_token,
)
from shared.observe.metrics import CHALLENGES, OUTCOMES, SECURITY_EVENTS
from shared.scep.certificate import read_certificate
from shared.x509.key_ids import spki_sha256

_log = structlog.get_logger()

Outcome = CertificateIssued | IssuanceFailed


class RequestMissingError(Exception):
    """Raised for a verdict whose request is not on the log, or not yet."""


class OutcomeMissingError(Exception):
    """Raised where the key's certificate is recorded and its issuance has not ended yet."""


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
            report_forgery(Stage.VERDICT, stored.subject, error)
            return None
        return event if isinstance(event, EnrollmentApproved) else None

    async def _outcome(self, stored: Stored, verdict: EnrollmentApproved) -> Outcome:
        authorities = self.settings.issuers.get(verdict.template.issuer)
        ca = authorities.pinned(verdict.template.ca_spki_sha256) if authorities else None
        if ca is None:
            return _failed(verdict, Reason.BEYOND_CEILING, "the verdict is for another CA")
        if refused := self._refusal(stored, verdict, ca):
            return _failed(verdict, *refused)
        if verdict.existing and (issued := await self._existing(verdict)):
            return issued
        # The verdict may be hours old: what was compromised since must not be certified.
        compromised, request = await asyncio.gather(
            self._compromised(spki_sha256(verdict.template.spki)), self._request(stored)
        )
        if compromised:
            return _failed(verdict, Reason.KEY_COMPROMISED, "the key was revoked as compromised")
        if problem := self._misfit(stored, request, verdict, ca):
            SECURITY_EVENTS.labels(Stage.VERDICT).inc()
            _log.error("verdict_not_supported", subject=stored.subject, detail=problem)
            return _failed(verdict, Reason.BEYOND_CEILING, problem)
        return await self._issue(stored, verdict, ca)

    async def _compromised(self, key: str) -> bool:
        """Whether an issuer's signed mark says that a key must not be certified again."""
        trusted = self.settings.trusted_issuers
        wildcard = key_compromised(key, "*")
        marks = Series(self.bus, CERTS, wildcard, KeyCompromised, trusted, "certificate")
        return await marks.newest() is not None

    def _refusal(
        self, stored: Stored, verdict: EnrollmentApproved, ca: LocalCa
    ) -> tuple[Reason, str] | None:
        """Why the verdict by itself is not acted on."""
        if problem := ended(ca.ceilings, stored.seconds):
            return Reason.CA_NOT_VALID, problem
        if self.clock() > verdict.valid_until:
            return Reason.VERDICT_EXPIRED, "the approval came too late to act on"
        if problem := beyond_ceilings(verdict.template, ca.ceilings):
            return Reason.BEYOND_CEILING, problem
        return None

    async def _request(self, stored: Stored) -> Stored:
        """Return the request that a verdict is about, which the log stored before it.

        Where even the leader has none the message comes again, and is given up in the end.
        """
        enrollment, _ = parse_subject(stored.subject)
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        request = await self.bus.get_last_or_leader(stream, subject)
        if request is None:
            raise RequestMissingError(stored.subject)
        return request

    def _misfit(
        self, stored: Stored, request: Stored, verdict: EnrollmentApproved, ca: LocalCa
    ) -> str:
        """Why the stored request does not carry what the verdict wants signed."""
        enrollment, _ = parse_subject(stored.subject)
        times = Times(request.seconds, stored.seconds)
        return unsupported(enrollment, request, verdict) or out_of_time(
            verdict.template, ca.ceilings, times
        )

    async def _existing(self, verdict: EnrollmentApproved) -> CertificateIssued | None:
        """The certificate that the key has already, from the log; None where there will be none.

        One that is recorded and not issued yet is about to be, also after a kill in between.
        """
        template = verdict.template
        recorded = await self.bus.get_last_or_leader(
            CERTS, certificate_issued(template.issuer, verdict.existing)
        )
        if recorded is None:
            return None
        try:
            record = authenticate_as(CertificateRecorded, recorded, self.settings.trusted_issuers)
            enrollment = parse_prefix(record.enrollment)
            stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
            ended = await self.bus.get_last_or_leader(stream, subject)
            if ended is None:
                raise OutcomeMissingError(record.enrollment)
            issued = authenticate(ended, self.settings.trusted_issuers, Stage.OUTCOME)
        except UnreadableEventError as error:
            report_forgery(Stage.OUTCOME, verdict.existing, error)
            return None
        if not isinstance(issued, CertificateIssued):
            return None  # its serial number was recorded, and it was refused after all
        if read_certificate(issued.certificate).spki != template.spki:
            return None
        return msgspec.structs.replace(issued, request_sha256=verdict.request_sha256)

    async def _issue(self, stored: Stored, verdict: EnrollmentApproved, ca: LocalCa) -> Outcome:
        """Record the serial, then sign: no certificate exists that the log does not know of."""
        template = verdict.template
        attempt = parse_subject(stored.subject)[0].prefix()
        made = ca.draft(template, attempt)
        if problem := unreadable(
            template, ca.unsigned(made), lambda plain: ca.unsigned(ca.draft(plain, attempt))
        ):
            return _failed(verdict, Reason.UNREADABLE, problem)
        record = _recorded(attempt, verdict, made.serial, ca)
        places = (
            certificate_issued(template.issuer, record.serial),
            key_issued(record.spki_sha256, template.issuer, record.serial),
        )
        await asyncio.gather(*(self._index(place, record) for place in places))
        return CertificateIssued(
            request_sha256=verdict.request_sha256,
            issuer=template.issuer,
            serial=record.serial,
            certificate=ca.sign(made),
            not_after=template.not_after,
        )

    async def _index(self, subject: str, record: CertificateRecorded) -> None:
        if not await Log(self.bus, self.settings.signer).append(subject, record):
            _log.info("serial_recorded_before", serial=record.serial)

    async def _record(self, stored: Stored, verdict: EnrollmentApproved, outcome: Outcome) -> None:
        """Append the outcome; where one stands already, that one is announced, ours forgotten."""
        enrollment, _ = parse_subject(stored.subject)
        subject = enrollment.subject(Stage.OUTCOME)
        message = sign(outcome, subject, self.settings.signer)
        if await append_first(self.bus, subject, message):
            reason = outcome.reason if isinstance(outcome, IssuanceFailed) else "issued"
            OUTCOMES.labels(verdict.template.issuer, reason).inc()
            kind = verdict.facts.challenge
            if isinstance(outcome, CertificateIssued) and kind != "none":
                CHALLENGES.labels(enrollment.profile, kind, "success").inc()
        else:
            stream = enroll_stream(enrollment.shard)
            first = await self.bus.get_last_or_leader(stream, subject)
            if first is None:
                raise BusUnavailableError("a conflicting outcome cannot be read yet")
            message = Message(first.payload, dict(first.headers))
        hint = Message(message.payload, message.headers | {SUBJECT: subject})
        await self.bus.hint(gateway_hints(verdict.gateway), hint)


def _recorded(
    attempt: str, verdict: EnrollmentApproved, serial: bytes, ca: LocalCa
) -> CertificateRecorded:
    template, renews = verdict.template, verdict.renews
    return CertificateRecorded(
        request_sha256=verdict.request_sha256,
        enrollment=attempt,
        spki_sha256=spki_sha256(template.spki),
        subject=verdict.facts.subject,
        not_before=template.not_before,
        not_after=template.not_after,
        serial=serial_token(serial),
        ca_spki_sha256=ca.pin,
        names_sha256=names_sha256(template),
        renews=renews.serial if renews else "",
        key_uses=renews.key_uses if renews else 0,
    )


def _failed(verdict: EnrollmentApproved, reason: Reason, detail: str) -> IssuanceFailed:
    return IssuanceFailed(
        request_sha256=verdict.request_sha256,
        reason=reason,
        fail_info=FAIL_INFO[reason],
        detail=detail,
    )
