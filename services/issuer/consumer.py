"""The one path from a verdict to its outcome: authentic, within the ceilings, recorded, issued."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog

from services.issuer.ceilings import Times, beyond_ceilings, ended, names_sha256, out_of_time
from services.issuer.connectors.connector import (
    Connector,
    Issued,
    IssuingCa,
    Order,
    Prepared,
    Refused,
    Result,
)
from services.issuer.evidence import unsupported
from services.issuer.orders import Orders
from services.issuer.received import misissued, valid_until
from services.issuer.settings import Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import Log, append_first, report_forgery
from shared.bus.series import Series
from shared.bus.topology import gateway_hints
from shared.limits import shortened
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
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError
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
    _places: dict[str, Places] = field(default_factory=dict)

    @property
    def _orders(self) -> Orders:
        return Orders(self.bus, self.settings.signer, self.settings.trusted_issuers, self.clock)

    async def handle(self, stored: Stored) -> None:
        """Issue what an authentic verdict approves."""
        verdict = self._verdict(stored)
        if verdict is not None:
            await self._record(stored, verdict, await self._outcome(stored, verdict))

    async def give_up(self, stored: Stored) -> None:
        """End a verdict that kills its worker; an order that a CA may carry out is not given up."""
        verdict = self._verdict(stored)
        if verdict is not None and await self._is_ordered(stored):
            await self._record(stored, verdict, await self._outcome(stored, verdict))
        elif verdict is not None:
            detail = "the certificate could not be issued"
            await self._record(stored, verdict, _failed(verdict, Reason.POISON, detail))

    async def _is_ordered(self, stored: Stored) -> bool:
        return await self._orders.is_open(parse_subject(stored.subject)[0])

    def _verdict(self, stored: Stored) -> EnrollmentApproved | None:
        """The approval, if a known validator signed it for this subject; else nothing happens."""
        try:
            event = authenticate(stored, self.settings.validators, Stage.VERDICT)
        except UnreadableEventError as error:
            report_forgery(Stage.VERDICT, stored.subject, error)
            return None
        return event if isinstance(event, EnrollmentApproved) else None

    async def _outcome(self, stored: Stored, verdict: EnrollmentApproved) -> Outcome:
        connector = self.settings.issuers.get(verdict.template.issuer)
        ca = connector.pinned(verdict.template.ca_spki_sha256) if connector else None
        if connector is None or ca is None:
            return _failed(verdict, Reason.BEYOND_CEILING, "the verdict is for another CA")
        if refused := self._refusal(stored, verdict, ca):
            reason, detail = refused
            # What a CA was asked for in time may exist: its certificate is not left to itself.
            if reason is not Reason.VERDICT_EXPIRED or not await self._is_ordered(stored):
                return _failed(verdict, reason, detail)
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
        return await self._issue(stored, verdict, connector, ca)

    async def _compromised(self, key: str) -> bool:
        """Whether an issuer's signed mark says that a key must not be certified again."""
        trusted = self.settings.trusted_issuers
        wildcard = key_compromised(key, "*")
        marks = Series(self.bus, CERTS, wildcard, KeyCompromised, trusted, "certificate")
        return await marks.newest() is not None

    def _refusal(
        self, stored: Stored, verdict: EnrollmentApproved, ca: IssuingCa
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
        self, stored: Stored, request: Stored, verdict: EnrollmentApproved, ca: IssuingCa
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

    async def _issue(
        self, stored: Stored, verdict: EnrollmentApproved, connector: Connector, ca: IssuingCa
    ) -> Outcome:
        """Record, then ask the CA: no certificate exists that the log does not know of."""
        order = Order(parse_subject(stored.subject)[0].prefix(), verdict.template)
        prepared = connector.prepare(order)
        if isinstance(prepared, Refused):
            return _failed(verdict, prepared.reason, shortened(prepared.detail))
        if prepared.serial:
            await self._record_serial(order, verdict, prepared.serial, verdict.template.not_after)
            result: Result = await connector.issue(order, prepared)
        else:
            result = await self._ordered(connector, order, prepared, verdict)
        if isinstance(result, Refused):
            return _failed(verdict, result.reason, shortened(result.detail))
        if not isinstance(result, Issued):  # the CA has not decided, or may have: ask it again
            raise DeferredError(order.key)
        if prepared.serial:
            return _issued(verdict, prepared.serial, verdict.template.not_after, result.certificate)
        return await self._received(order, verdict, ca, result.certificate)

    async def _ordered(
        self, connector: Connector, order: Order, prepared: Prepared, verdict: EnrollmentApproved
    ) -> Result:
        """Ask a CA outside, which must not hold up the verdicts for others."""
        places = self._places.setdefault(verdict.template.issuer, Places())
        with places.taken() as free:
            if not free:
                raise DeferredError(order.key)
            return await self._orders.result(connector, order, prepared, verdict.request_sha256)

    async def _received(
        self, order: Order, verdict: EnrollmentApproved, ca: IssuingCa, der: bytes
    ) -> Outcome:
        """Record a certificate that a CA made, if it is the one that was approved."""
        if problem := misissued(verdict.template, ca.ceilings, ca.chain[0], der):
            SECURITY_EVENTS.labels(Stage.OUTCOME).inc()
            _log.error("certificate_misissued", enrollment=order.enrollment, detail=problem)
            return _failed(verdict, Reason.UNREADABLE, problem)
        serial, not_after = read_certificate(der).serial, valid_until(der)
        await self._record_serial(order, verdict, serial, not_after)
        return _issued(verdict, serial, not_after, der)

    async def _record_serial(
        self, order: Order, verdict: EnrollmentApproved, serial: bytes, not_after: int
    ) -> None:
        """Append what exists, or will, under its serial number and its key."""
        record = _recorded(order.enrollment, verdict, serial, not_after)
        places = (
            certificate_issued(verdict.template.issuer, record.serial),
            key_issued(record.spki_sha256, verdict.template.issuer, record.serial),
        )
        await asyncio.gather(*(self._index(place, record) for place in places))

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
    attempt: str, verdict: EnrollmentApproved, serial: bytes, not_after: int
) -> CertificateRecorded:
    template, renews = verdict.template, verdict.renews
    return CertificateRecorded(
        request_sha256=verdict.request_sha256,
        enrollment=attempt,
        spki_sha256=spki_sha256(template.spki),
        subject=verdict.facts.subject,
        not_before=template.not_before,
        not_after=not_after,
        serial=serial_token(serial),
        ca_spki_sha256=template.ca_spki_sha256,
        names_sha256=names_sha256(template),
        renews=renews.serial if renews else "",
        key_uses=renews.key_uses if renews else 0,
    )


def _issued(
    verdict: EnrollmentApproved, serial: bytes, not_after: int, der: bytes
) -> CertificateIssued:
    return CertificateIssued(
        request_sha256=verdict.request_sha256,
        issuer=verdict.template.issuer,
        serial=serial_token(serial),
        certificate=der,
        not_after=not_after,
    )


def _failed(verdict: EnrollmentApproved, reason: Reason, detail: str) -> IssuanceFailed:
    return IssuanceFailed(
        request_sha256=verdict.request_sha256,
        reason=reason,
        fail_info=FAIL_INFO[reason],
        detail=detail,
    )
