"""Turns a verdict into its outcome: authenticate, check the ceilings, record, issue."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import structlog

from services.issuer.breaker import Breaker
from services.issuer.ceilings import Times, beyond_ceilings, ended, out_of_time
from services.issuer.connectors.connector import (
    AnswerLostError,
    CaUnavailableError,
    Connector,
    Issued,
    IssuingCa,
    Order,
    Prepared,
    Refused,
)
from services.issuer.evidence import unrelated, unsupported
from services.issuer.existing import Existing
from services.issuer.lints import lint
from services.issuer.orders import Orders
from services.issuer.outcomes import failure, issuance, order_of
from services.issuer.received import is_from, misissued, undraftable, validity
from services.issuer.responder import Responder
from services.issuer.serial_records import SerialRecords
from services.issuer.settings import Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import append_first, read_stage
from shared.bus.series import Series
from shared.bus.topology import gateway_hints
from shared.limits import shortened
from shared.log.envelope import (
    SUBJECT,
    TYPE,
    Message,
    Stored,
    sign,
)
from shared.log.events.certificates import KeyCompromised
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import CertificateIssued, EnrollmentApproved, IssuanceFailed
from shared.log.reasons import Reason
from shared.log.seal import SealError, unseal
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import (
    key_compromised,
    parse_subject,
    serial_token,
)
from shared.observe.logs import log_failure
from shared.observe.metrics import CHALLENGES, OUTCOMES, SECURITY_EVENTS
from shared.runtime.live import Live
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError
from shared.scep.certificate import read_certificate
from shared.text.printable import visible
from shared.x509.key_ids import spki_sha256

_log = structlog.get_logger()

_OTHER_REPLICA_SECONDS: Final = 15.0
Outcome = CertificateIssued | IssuanceFailed


class RequestMissingError(Exception):
    """Raised for a verdict whose request is not on the log, or not yet."""


@dataclass
class VerdictConsumer:
    """Appends exactly one outcome for each approval by a trusted validator."""

    bus: Bus
    live: Live[Settings]
    clock: Callable[[], float]
    responder: Responder | None = None
    _places: dict[str, Places] = field(default_factory=dict)
    _breakers: dict[str, Breaker] = field(default_factory=dict)

    @property
    def _orders(self) -> Orders:
        now = self.live.current
        return Orders(self.bus, now.signer, now.trusted_issuers, self.clock, self._breakers)

    @property
    def _serials(self) -> SerialRecords:
        now = self.live.current
        return SerialRecords(self.bus, now.signer, now.trusted_issuers)

    async def handle(self, stored: Stored) -> None:
        """Issue the certificate that an authentic verdict approves, or record why not."""
        verdict = self._verdict(stored)
        if verdict is not None and not await self._has_ended(stored, verdict):
            outcome = await self._outcome(stored, verdict)
            if verdict.staple and not verdict.existing and self.responder:
                outcome = await self.responder.staple(verdict.template, outcome)
            await self._record(stored, verdict, outcome)

    async def give_up(self, stored: Stored) -> bool:
        """Fail a verdict that kills its worker.

        It is handled again instead if an external CA has its order, or may still be asked in time:
        an order may be deferred any number of times. Returns whether it was.
        """
        verdict = self._verdict(stored)
        if verdict is None or await self._has_ended(stored, verdict):
            return verdict is not None
        connector = self.live.current.issuers.get(verdict.template.issuer)
        if connector is not None and connector.lease > 0:
            order = order_of(stored, verdict)
            if self.clock() <= verdict.valid_until or await self._orders.is_open(order):
                await self._record(stored, verdict, await self._outcome(stored, verdict))
                return True
        detail = "the certificate could not be issued"
        await self._record(stored, verdict, failure(verdict, Reason.POISON, detail))
        return False

    def _verdict(self, stored: Stored) -> EnrollmentApproved | None:
        """Return the approval if a trusted validator signed it for this subject, else None."""
        event = read_stage(stored, self.live.current.validators, Stage.VERDICT)
        if event is None:
            return None
        return event if isinstance(event, EnrollmentApproved) else None

    async def _has_ended(self, stored: Stored, verdict: EnrollmentApproved) -> bool:
        """Return whether an external CA's order has led to an outcome, after announcing it again.

        A verdict that is delivered again must neither order a second certificate nor revoke the
        first. A local CA signs the same certificate again.
        """
        connector = self.live.current.issuers.get(verdict.template.issuer)
        if connector is None or not connector.lease:
            return False
        enrollment, _ = parse_subject(stored.subject)
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
        outcome = await self.bus.get_last_or_leader(stream, subject)
        if outcome is None:
            return False
        if read_stage(outcome, self.live.current.trusted_issuers, Stage.OUTCOME) is None:
            # A forged event ends the attempt too: what the CA made for it is nobody's.
            await self._orders.abandon(order_of(stored, verdict), verdict.request_sha256)
        await self._announce(verdict, subject, Message(outcome.payload, dict(outcome.headers)))
        return True

    async def _outcome(self, stored: Stored, verdict: EnrollmentApproved) -> Outcome:
        """Decide the outcome; a failure waits until an open order is settled."""
        connector = self.live.current.issuers.get(verdict.template.issuer)
        ca = connector.pinned(verdict.template.ca_spki_sha256) if connector else None
        if connector is None or ca is None:
            foreign = failure(verdict, Reason.BEYOND_CEILING, "the verdict is for another CA")
            return await self._settled(foreign, stored, verdict, connector)
        if refused := self._refusal(stored, verdict, ca):
            if refused[0] is Reason.VERDICT_EXPIRED and connector.lease > 0:
                return await self._expired(stored, verdict, connector, refused)
            return await self._settled(failure(verdict, *refused), stored, verdict, connector)
        decided = await self._decided(stored, verdict, ca)
        if decided is None:
            return await self._issue(stored, verdict, connector, ca)
        if isinstance(decided, IssuanceFailed):
            return await self._settled(decided, stored, verdict, connector)
        return decided

    async def _settled(
        self,
        failed: IssuanceFailed,
        stored: Stored,
        verdict: EnrollmentApproved,
        connector: Connector | None,
    ) -> IssuanceFailed:
        """Fail, after revoking what an external CA has made for an order that is open."""
        order = order_of(stored, verdict)
        if connector is None:
            await self._orders.abandon(order, verdict.request_sha256)
        elif connector.lease > 0:
            found = await self._orders.settle(connector, order, verdict.request_sha256)
            if isinstance(found, Issued):
                return await self._disown(failed, order, verdict, connector, found.certificate)
        return failed

    async def _decided(
        self, stored: Stored, verdict: EnrollmentApproved, ca: IssuingCa
    ) -> Outcome | None:
        """Return the outcome if it needs no new certificate; None if one is to be issued."""
        if verdict.existing:
            now = self.live.current
            known = Existing(self.bus, now.trusted_issuers, now.validators)
            if issued := await known.read(verdict):
                return issued
        # The verdict may be hours old: a key compromised since then must not be certified.
        compromised, request = await asyncio.gather(
            self._compromised(spki_sha256(verdict.template.spki)), self._request(stored)
        )
        if compromised:
            return failure(verdict, Reason.KEY_COMPROMISED, "the key was revoked as compromised")
        if problem := self._unsupported(stored, request, verdict, ca):
            SECURITY_EVENTS.labels(Stage.VERDICT).inc()
            _log.error("verdict_not_supported", subject=stored.subject, detail=problem)
            return failure(verdict, Reason.BEYOND_CEILING, problem)
        return None

    async def _expired(
        self,
        stored: Stored,
        verdict: EnrollmentApproved,
        connector: Connector,
        refused: tuple[Reason, str],
    ) -> Outcome:
        """Fail, unless an external CA was asked before the approval expired and has issued."""
        order = order_of(stored, verdict)
        found = await self._orders.settle(connector, order, verdict.request_sha256)
        if isinstance(found, Issued):
            return await self._received(stored, order, verdict, connector, found.certificate)
        if isinstance(found, Refused):
            return failure(verdict, found.reason, shortened(visible(found.detail)))
        return failure(verdict, *refused)

    async def _disown(
        self,
        failed: IssuanceFailed,
        order: Order,
        verdict: EnrollmentApproved,
        connector: Connector,
        der: bytes,
    ) -> IssuanceFailed:
        """Revoke a certificate that the CA issued and no device will get."""
        pin = verdict.template.ca_spki_sha256
        ca = connector.pinned(pin) or connector.current
        if not is_from(ca.chain[0], der):  # the CA may have an honest certificate of that number
            return failed
        serial = serial_token(read_certificate(der).serial)
        holder = await self._serials.holder(verdict.template.issuer, serial)
        if holder not in ("", order.enrollment):
            return failed  # another enrollment's
        _log.error("certificate_disowned", serial=serial, detail=failed.detail)
        try:
            async with asyncio.timeout(connector.lease):
                reason = RevocationReason.CESSATION_OF_OPERATION
                await connector.revoke(serial, pin, reason, der)
            detail = f"{failed.detail}; the CA revoked its certificate {serial}"
        except (CaUnavailableError, AnswerLostError, TimeoutError) as error:
            raise DeferredError(serial) from error
        except Exception as error:  # noqa: BLE001 - refused, or a package's error
            log_failure("revocation_failed", error, serial=serial)
            await self._orders.abandon(order, verdict.request_sha256)
            detail = f"{failed.detail}; the CA's certificate {serial} is not revoked"
        return msgspec.structs.replace(failed, detail=shortened(detail))

    async def _compromised(self, key: str) -> bool:
        """Return whether an issuer's signed mark forbids certifying a key again."""
        trusted = self.live.current.trusted_issuers
        wildcard = key_compromised(key, "*")
        marks = Series(self.bus, CERTS, wildcard, KeyCompromised, trusted, "certificate")
        return await marks.newest() is not None

    def _refusal(
        self, stored: Stored, verdict: EnrollmentApproved, ca: IssuingCa
    ) -> tuple[Reason, str] | None:
        """Return why the verdict by itself cannot be acted on; None if it can."""
        if problem := ended(ca.ceilings, stored.seconds):
            return Reason.CA_NOT_VALID, problem
        if self.clock() > verdict.valid_until:
            return Reason.VERDICT_EXPIRED, "the approval has expired"
        if verdict.template.not_after <= stored.seconds:  # a device asked for minutes, and waited
            return Reason.VERDICT_EXPIRED, "the certificate would have expired already"
        if problem := beyond_ceilings(verdict.template, ca.ceilings):
            return Reason.BEYOND_CEILING, problem
        return None

    async def _request(self, stored: Stored) -> Stored:
        """Return the request that a verdict is about, which the log stored before it.

        Raises `RequestMissingError` if even the leader has none: the verdict is then redelivered,
        and given up in the end.
        """
        enrollment, _ = parse_subject(stored.subject)
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        request = await self.bus.get_last_or_leader(stream, subject)
        if request is None:
            raise RequestMissingError(stored.subject)
        return request

    def _unsupported(
        self, stored: Stored, request: Stored, verdict: EnrollmentApproved, ca: IssuingCa
    ) -> str:
        """Return why the stored request does not support the verdict's template, "" if it does."""
        enrollment, _ = parse_subject(stored.subject)
        times = Times(request.seconds, stored.seconds)
        return unsupported(enrollment, request, verdict) or out_of_time(
            verdict.template, ca.ceilings, times
        )

    async def _issue(
        self, stored: Stored, verdict: EnrollmentApproved, connector: Connector, ca: IssuingCa
    ) -> Outcome:
        """Record first, then ask the CA: no certificate may exist that the log does not know of."""
        order = order_of(stored, verdict)
        prepared = connector.prepare(order)
        if isinstance(prepared, Refused):
            refused = failure(verdict, prepared.reason, shortened(prepared.detail))
            return await self._settled(refused, stored, verdict, connector)
        if not connector.lease:
            return await self._signed(order, verdict, connector, prepared)
        if problem := undraftable(verdict.template, ca.chain[0]):
            refused = failure(verdict, Reason.UNREADABLE, problem)
            return await self._settled(refused, stored, verdict, connector)
        if connector.needs_csr:
            csr = self._csr(stored, verdict)
            if isinstance(csr, str):
                refused = failure(verdict, Reason.BEYOND_CEILING, csr)
                return await self._settled(refused, stored, verdict, connector)
            order = replace(order, csr=csr)
        result = await self._ordered(connector, order, prepared, verdict)
        if isinstance(result, Refused):
            return failure(verdict, result.reason, shortened(visible(result.detail)))
        return await self._received(stored, order, verdict, connector, result.certificate)

    def _csr(self, stored: Stored, verdict: EnrollmentApproved) -> bytes | str:
        """Return the CSR (DER) that a validator sealed for the issuers, or why it is unusable.

        Raises `DeferredError` if only another replica may have the key.
        """
        if not verdict.csr:
            return "the CSR for the CA is missing: set trust.issuer_sealing_key for the validators"
        key = self.live.current.opening_keys.get(verdict.csr_key)
        if key is None:
            _log.error("csr_key_unknown", subject=stored.subject, key=verdict.csr_key)
            raise DeferredError(stored.subject, _OTHER_REPLICA_SECONDS)
        try:
            csr = unseal(verdict.csr, stored.subject, key)
        except SealError:
            return "the CSR for the CA cannot be decrypted"
        return unrelated(parse_subject(stored.subject)[0], verdict, csr) or csr

    async def _signed(
        self, order: Order, verdict: EnrollmentApproved, connector: Connector, prepared: Prepared
    ) -> Outcome:
        """Sign in this process, under the serial number that was recorded."""
        template = verdict.template
        times = template.not_before, template.not_after
        await self._serials.add(order, verdict, prepared.serial, times)
        result = await connector.issue(order, prepared)
        if not isinstance(result, Issued):
            raise TypeError("a local CA must issue at once")
        return issuance(verdict, prepared.serial, template.not_after, result.certificate)

    async def _ordered(
        self, connector: Connector, order: Order, prepared: Prepared, verdict: EnrollmentApproved
    ) -> Issued | Refused:
        """Ask an external CA, without holding up the verdicts for other issuers."""
        places = self._places.setdefault(verdict.template.issuer, Places())
        with places.taken() as free:
            if not free:
                raise DeferredError(order.key)
            return await self._orders.place(connector, order, prepared, verdict.request_sha256)

    async def _received(
        self,
        stored: Stored,
        order: Order,
        verdict: EnrollmentApproved,
        connector: Connector,
        der: bytes,
    ) -> Outcome:
        """Record a certificate that a CA issued, if it is the approved one; otherwise fail."""
        ca = connector.pinned(verdict.template.ca_spki_sha256) or connector.current
        holder = ""
        problem = misissued(verdict.template, ca.ceilings, ca.chain[0], der, stored.seconds)
        if not problem:
            for finding in lint(der):
                _log.warning("certificate_lint", enrollment=order.enrollment, detail=finding.text)
            serial, times = read_certificate(der).serial, validity(der)
            record = await self._serials.add(order, verdict, serial, times)
            holder = await self._serials.holder(
                verdict.template.issuer, record.serial, recorded=True
            )
            if holder == record.enrollment:
                return issuance(verdict, serial, times[1], der)
            problem = (
                "the CA has already used the serial number"
                if holder
                else "the record of the serial number is forged"
            )
        SECURITY_EVENTS.labels(Stage.OUTCOME).inc()
        _log.error("certificate_misissued", enrollment=order.enrollment, detail=problem)
        failed = failure(verdict, Reason.UNREADABLE, problem)
        if holder:  # revoking by this serial number would hit the holder's certificate
            return failed
        return await self._disown(failed, order, verdict, connector, der)

    async def _record(self, stored: Stored, verdict: EnrollmentApproved, outcome: Outcome) -> None:
        """Append the outcome and hint the gateway; if one is stored already, announce that one."""
        enrollment, _ = parse_subject(stored.subject)
        subject = enrollment.subject(Stage.OUTCOME)
        message = sign(outcome, subject, self.live.current.signer)
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
                raise BusUnavailableError("the conflicting outcome is not readable yet")
            await self._check_alike(stored, verdict, outcome, first)
            message = Message(first.payload, dict(first.headers))
        await self._announce(verdict, subject, message)

    async def _check_alike(
        self, stored: Stored, verdict: EnrollmentApproved, outcome: Outcome, first: Stored
    ) -> None:
        """Note a possible orphan if another issuer was faster, with another certificate."""
        if not isinstance(outcome, CertificateIssued):
            return
        trusted = self.live.current.trusted_issuers
        other = read_stage(first, trusted, Stage.OUTCOME)
        if not isinstance(other, CertificateIssued) or other.serial != outcome.serial:
            await self._orders.abandon(order_of(stored, verdict), verdict.request_sha256)

    async def _announce(self, verdict: EnrollmentApproved, subject: str, message: Message) -> None:
        """Hint the gateway, unless what it waits for may be the confirmation."""
        if verdict.withheld and message.headers.get(TYPE) == CertificateIssued.__name__:
            return
        hint = Message(message.payload, message.headers | {SUBJECT: subject})
        await self.bus.hint(gateway_hints(verdict.gateway), hint)
