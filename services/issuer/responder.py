"""Signs OCSP responses before they are asked for, and keeps them fresh.

Theory of operation. A response goes to the log under a number of its certificate's series; gateways
serve the newest and sign nothing. It is signed by a key that lives in this process alone, under a
certificate that the CA issued for it (RFC 6960 s4.2.2.2): whoever takes it can tell lies about
certificates for some days, and issue none.

* A certificate's first response follows its record (`handle`, by the durable consumer of CERTS).
* A new status is answered before its command is (`publish`, called by the revocation consumer).
* A response past half of its validity is signed again while its certificate lives (`look`). The
  stream holds responses in the order of their signing, so the due ones are at its front.
* A pass over all certificates finds those without a fresh response (`search`): from before OCSP was
  switched on, after an outage, after a failure. It begins four times in the validity of a response.

The series is read before the status, so whoever appends later has read the later status.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.issuer.connectors.connector import OcspAuthority, ServiceCa
from services.issuer.ocsp import Answer, Revoked, response, signer_template, tbs_response
from services.issuer.service_certificates import issue_for_service
from services.issuer.settings import Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import Log, read_authentic
from shared.bus.series import Series, signing
from shared.bus.topology import ocsp_hints
from shared.config.pkcs11 import TokenUnavailableError
from shared.log.catalog import CERTIFICATE, CHANNELS
from shared.log.envelope import Message, Stored
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatusChanged,
    OcspResponseSigned,
)
from shared.log.events.enrollment import CertificateIssued, CertificateTemplate, IssuanceFailed
from shared.log.streams import CERTS, OCSP
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    ocsp_response,
    service_certificate,
)
from shared.observe.logs import log_failure
from shared.runtime.live import Live
from shared.runtime.periodic import every, one_by_one
from shared.runtime.worker import Job
from shared.scep.certificate import read_certificate
from shared.x509.cert_ids import CaId, ca_ids
from shared.x509.key_ids import public_key_id

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 2.0
_SIGNER_SECONDS: Final = 86400  # for which a key signs; its certificate outlives its responses
_BACKDATED: Final = 3600
_BATCH: Final = 64
_RANDOM: Final = secrets.SystemRandom()
_PASSES: Final = 4  # over all certificates in the validity of a response
_PAUSE_SECONDS: Final = 0.01  # between certificates that are only looked at


@dataclass(frozen=True)
class Signer:
    """A key that signs responses for one CA until `until` (Unix seconds), and its certificate."""

    key: ec.EllipticCurvePrivateKey
    spki: bytes
    certificate: bytes
    not_after: int
    until: int

    def sign(self, answer: Answer, ca: CaId) -> bytes:
        """Return the OCSPResponse (DER) about a certificate of the CA."""
        tbs = tbs_response(answer, ca, self.spki)
        return response(tbs, self.key.sign(tbs, ec.ECDSA(hashes.SHA256())), self.certificate)


@dataclass
class Responder:
    """Signs the OCSP responses of all issuers that want them. `clock` returns Unix seconds."""

    bus: Bus
    live: Live[Settings]
    clock: Callable[[], float]
    replica: str
    _signers: dict[tuple[str, str], Signer] = field(default_factory=dict)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)
    _read: dict[str, int] = field(default_factory=dict)

    def jobs(self) -> list[Job]:
        """Return the work on new certificates; none while no issuer wants OCSP responses."""
        return [Job(CERTS, self.handle, self.give_up)] if self._authorities() else []

    def _authorities(self) -> Mapping[str, OcspAuthority]:
        found = ((name, each.ocsp) for name, each in self.live.current.issuers.items())
        return {name: each for name, each in found if each is not None}

    async def handle(self, stored: Stored) -> None:
        """Sign the first response about a certificate; `stored` is its record."""
        at = CHANNELS.match(stored.subject)
        if at is not None and at.channel is CERTIFICATE:
            await self.publish(at.fields["issuer"], at.fields["serial"])

    async def give_up(self, stored: Stored) -> bool:
        """Leave a record whose response cannot be signed to the next pass over all of them."""
        _log.error("ocsp_response_given_up", subject=stored.subject)
        return True

    async def try_publish(self, issuer: str, serial: str) -> bool:
        """Do the same as `publish`; log what fails for this certificate, and return False then.

        Raises `BusUnavailableError` and `TokenUnavailableError`, which waiting cures.
        """
        try:
            await self.publish(issuer, serial)
        except (BusUnavailableError, TokenUnavailableError):
            raise
        except Exception as error:  # noqa: BLE001 - one certificate must not stop the others
            log_failure("ocsp_response_failed", error, issuer=issuer, serial=serial)
            return False
        return True

    async def publish(self, issuer: str, serial: str) -> bool:
        """Sign a response unless the newest is fresh and tells the status; return whether it did.

        Does nothing for a certificate that has ended or whose CA has, or whose issuer wants no
        responses.
        """
        authority = self._authorities().get(issuer)
        record = await self._record(issuer, serial) if authority is not None else None
        if authority is None or record is None or record.not_after <= self.clock():
            return False
        ca = next((ca for ca in authority.active if ca.pin == record.ca_spki_sha256), None)
        if ca is None or ca.ceilings.ca_not_after <= self.clock():
            return False
        return await self._publish(issuer, authority, ca, record)

    async def staple(
        self, template: CertificateTemplate, outcome: CertificateIssued | IssuanceFailed
    ) -> CertificateIssued | IssuanceFailed:
        """Return the outcome with an OCSP response about its new certificate, for the reply.

        Without one if the issuer signs none, if the certificate's status has ever changed, or if
        anything fails: no enrollment waits for a response, or fails for want of one.
        """
        if isinstance(outcome, IssuanceFailed):
            return outcome
        try:
            return await self._stapled(template, outcome)
        except Exception as error:  # noqa: BLE001 - the certificate is worth more
            log_failure("ocsp_response_failed", error, serial=outcome.serial)
            return outcome

    async def _stapled(
        self, template: CertificateTemplate, outcome: CertificateIssued
    ) -> CertificateIssued:
        authority = self._authorities().get(template.issuer)
        active = authority.active if authority is not None else ()
        ca = next((ca for ca in active if ca.pin == template.ca_spki_sha256), None)
        if (
            authority is None
            or ca is None
            or await self._has_status(template.issuer, outcome.serial)
        ):
            return outcome
        signer, now = await self._signer(template.issuer, authority, ca), int(self.clock())
        end = min(now + authority.ocsp_validity, signer.not_after)
        answer = Answer(bytes.fromhex(outcome.serial), None, now, end)
        der = signer.sign(answer, ca_ids(ca.chain[0])[0])
        return msgspec.structs.replace(outcome, ocsp=der, ocsp_until=end)

    async def _has_status(self, issuer: str, serial: str) -> bool:
        changes = certificate_status(issuer, serial, "*")
        return await self.bus.get_last_or_leader(CERTS, changes) is not None

    async def _publish(
        self, issuer: str, authority: OcspAuthority, ca: ServiceCa, record: CertificateRecorded
    ) -> bool:
        place = partial(ocsp_response, issuer, record.serial)
        trusted = self.live.current.trusted_issuers
        responses = Series(self.bus, OCSP, place("*"), OcspResponseSigned, trusted, "ocsp")
        changes = certificate_status(issuer, record.serial, "*")
        statuses = Series(self.bus, CERTS, changes, CertificateStatusChanged, trusted, "revoked")
        while True:
            newest = await responses.newest()
            status = await statuses.newest()
            position = status.stored.sequence if status is not None else 0
            known = newest.event if newest is not None else None
            if known and known.position == position and not _is_due(known, self.clock()):
                return False
            revoked = _revoked(status.event if status is not None else None)
            event = await self._signed(issuer, authority, ca, record, revoked, position)
            ttl = event.next_update - event.this_update
            written = signing(place, event, self.live.current.signer, ttl)
            if await responses.append(newest, written) is not None:
                await self.bus.hint(ocsp_hints(issuer), Message(record.serial.encode(), {}))
                return True

    async def _record(self, issuer: str, serial: str) -> CertificateRecorded | None:
        stored = await self.bus.get_last_or_leader(CERTS, certificate_issued(issuer, serial))
        if stored is None:
            return None
        trusted = self.live.current.trusted_issuers
        record = read_authentic(CertificateRecorded, stored, trusted, "certificate")
        return record if record is not None and record.serial == serial else None

    async def _signed(
        self,
        issuer: str,
        authority: OcspAuthority,
        ca: ServiceCa,
        record: CertificateRecorded,
        revoked: Revoked | None,
        position: int,
    ) -> OcspResponseSigned:
        signer, now = await self._signer(issuer, authority, ca), int(self.clock())
        end = min(now + authority.ocsp_validity, signer.not_after)
        answer = Answer(bytes.fromhex(record.serial), revoked, now, end)
        return OcspResponseSigned(
            issuer=issuer,
            serial=record.serial,
            ca_spki_sha256=ca.pin,
            this_update=now,
            next_update=end,
            not_after=record.not_after,
            position=position,
            responses={c.algorithm: signer.sign(answer, c) for c in ca_ids(ca.chain[0])},
        )

    async def _signer(self, issuer: str, authority: OcspAuthority, ca: ServiceCa) -> Signer:
        """Return the CA's signer of now; make one, and record its certificate, if there is none."""
        async with self._making:
            found = self._signers.get((issuer, ca.pin))
            if found is None or self.clock() >= found.until:
                found = await self._new_signer(issuer, authority, ca)
                self._signers[issuer, ca.pin] = found
            return found

    async def _new_signer(self, issuer: str, authority: OcspAuthority, ca: ServiceCa) -> Signer:
        now, parsed = int(self.clock()), read_certificate(ca.chain[0])
        key = ec.generate_private_key(ec.SECP256R1())
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        begin = max(now - _BACKDATED, ca.ceilings.ca_not_before)
        end = min(now + _SIGNER_SECONDS + authority.ocsp_validity, ca.ceilings.ca_not_after)
        key_id = parsed.key_id or public_key_id(parsed.spki)
        template = signer_template(issuer, ca.pin, key_id, spki, (begin, end))
        event = issue_for_service(ca, template, f"ocsp.{issuer}.{self.replica}", "ocsp")
        log = Log(self.bus, self.live.current.signer)
        await log.append(service_certificate(issuer, event.serial), event)
        _log.info("ocsp_signer_issued", issuer=issuer, serial=event.serial, not_after=end)
        return Signer(key, spki, event.certificate, end, now + _SIGNER_SECONDS)

    async def run(self) -> None:
        """Sign responses again that are due."""
        await every(_LOOK_SECONDS, self.look, name="ocsp", retry=_RETRY_SECONDS)

    async def run_search(self) -> None:
        """Look for certificates without a fresh response."""
        await every(self._pause, self.search, name="ocsp_search", retry=_LOOK_SECONDS)

    def _pause(self) -> float:
        shortest = min((a.ocsp_validity for a in self._authorities().values()), default=0)
        return max(_LOOK_SECONDS, shortest / _PASSES)

    async def look(self) -> None:
        """Renew what is due, for each issuer; one that fails does not stop the others."""
        await one_by_one(self._authorities(), self._renew)

    async def search(self) -> None:
        """Pass over all certificates once, for each issuer."""
        await one_by_one(self._authorities(), self._search)

    async def _renew(self, issuer: str) -> None:
        """Sign again what is due, in batches of random order: other replicas do the same."""
        while batch := await self._due(issuer):
            serials = {serial for serial in batch.values() if serial}
            for serial in _RANDOM.sample(sorted(serials), len(serials)):
                await self.try_publish(issuer, serial)
            self._read[issuer] = max(batch)

    async def _due(self, issuer: str) -> dict[int, str]:
        """Return the next responses that are due: the serial by sequence, "" for a forgery."""
        place, trusted = ocsp_response(issuer, "*", "*"), self.live.current.trusted_issuers
        found: dict[int, str] = {}
        begin = self._read.get(issuer, 0) + 1
        while len(found) < _BATCH:
            stored = await self.bus.get_next_or_leader(OCSP, place, begin)
            if stored is None:
                break
            event = read_authentic(OcspResponseSigned, stored, trusted, "ocsp")
            if event is not None and not _is_due(event, self.clock()):
                break
            ours = event is not None and event.issuer == issuer
            found[stored.sequence] = event.serial if event is not None and ours else ""
            begin = stored.sequence + 1
        return found

    async def _search(self, issuer: str) -> None:
        place, sequence = certificate_issued(issuer, "*"), 0
        while stored := await self.bus.get_next_or_leader(CERTS, place, sequence + 1):
            sequence = stored.sequence
            serial = stored.subject.split(".")[2]
            last = await self.bus.get_last(OCSP, ocsp_response(issuer, serial, "*"))
            event = last and read_authentic(
                OcspResponseSigned, last, self.live.current.trusted_issuers, "ocsp"
            )
            if not event or _is_due(event, self.clock()):
                await self.try_publish(issuer, serial)
            await asyncio.sleep(_PAUSE_SECONDS)


def _is_due(event: OcspResponseSigned, now: float) -> bool:
    """Return whether a response is past half of its validity."""
    return now > (event.this_update + event.next_update) / 2


def _revoked(status: CertificateStatusChanged | None) -> Revoked | None:
    if status is None or not status.revoked:
        return None
    return Revoked(status.revoked_at, status.reason)
