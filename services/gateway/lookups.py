"""Lookups on the log: certificates by serial number, and CRLs (RFC 8894 s4.5, s4.6)."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

import structlog

from services.gateway.settings import Profile, Settings
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.series import SeriesTooLongError
from shared.ca.chains import Chain
from shared.ca.crls import StoredCrl, newest_head, read_crl
from shared.ca.partitions import Partition
from shared.log.enrollment import confirms
from shared.log.envelope import UnreadableEventError, authenticate, authenticate_as
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import CertificateIssued
from shared.log.stages import Stage
from shared.log.streams import CERTS, enroll_stream
from shared.log.subjects import EnrollmentId, certificate_issued, parse_prefix, serial_token
from shared.observe.metrics import SECURITY_EVENTS
from shared.runtime.live import Live
from shared.scep.certificate import read_certificate
from shared.x509.names import read_name

_log = structlog.get_logger()
# (issuer id, CA certificate as DER, partition; None: the complete CRL)
CrlKey = tuple[str, bytes, Partition | None]


@dataclass
class Lookups:
    """Reads for GetCert, GetCRL and the CRL URL. CRLs are cached until a newer one is stored."""

    bus: Bus
    live: Live[Settings]
    _crls: dict[CrlKey, StoredCrl] = field(default_factory=dict)
    _next_reads: dict[CrlKey, asyncio.Task[StoredCrl]] = field(default_factory=dict)
    _reading: defaultdict[CrlKey, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )

    async def certificate(
        self, profile: Profile, chain: Chain, issuer: bytes, serial: bytes
    ) -> bytes | None:
        """Return the certificate (DER) with this issuer and serial.

        Return None unless it is a CA certificate of the chain or was issued for this profile.
        """
        own = _own(chain, issuer, serial)
        if own is not None or chain.ca_named(issuer) is None:
            return own
        try:
            return await self._issued(profile, chain, serial_token(serial))
        except UnreadableEventError as error:
            _report(error, serial)
            return None

    async def _recorded(self, issuer: str, serial: str) -> CertificateRecorded | None:
        stored = await self.bus.get_last_or_leader(CERTS, certificate_issued(issuer, serial))
        if stored is None:
            return None
        return authenticate_as(CertificateRecorded, stored, self.live.current.issuers)

    async def _issued(self, profile: Profile, chain: Chain, serial: str) -> bytes | None:
        record = await self._recorded(profile.issuer, serial)
        if record is None:
            return None
        enrollment = parse_prefix(record.enrollment)
        if enrollment.profile != profile.name:
            return None
        stream, subject = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
        ended = await self.bus.get_last_or_leader(stream, subject)
        if ended is None:
            return None
        issued = authenticate_as(CertificateIssued, ended, self.live.current.issuers)
        if issued.serial != serial or not chain.issued(issued.certificate):
            raise UnreadableEventError("the record is for another certificate")
        if issued.withheld and not await self._is_confirmed(enrollment, issued):
            return None
        return issued.certificate

    async def _is_confirmed(self, enrollment: EnrollmentId, issued: CertificateIssued) -> bool:
        """Return whether a certificate that was withheld may be given out."""
        place, stream = enrollment.subject(Stage.CONFIRMATION), enroll_stream(enrollment.shard)
        stored = await self.bus.get_last_or_leader(stream, place)
        if stored is None:
            return False
        trusted, request = self.live.current.validators, issued.request_sha256
        event = authenticate(stored, trusted, Stage.CONFIRMATION, request)
        return confirms(event, issued)

    async def crl(self, issuer: str, chain: Chain, name: bytes, serial: bytes) -> bytes | None:
        """Return the newest CRL (DER) of the issuer's CA with this name (DER), or None.

        The serial must be that of an existing certificate: the CA's own or one that it issued.
        Otherwise a CRL in reply to another client's altered envelope would reveal that the
        envelope decrypts.
        """
        if (own := _own(chain, name, serial)) is not None:
            return (await self.crl_of(issuer, own)).der
        if chain.ca_named(name) is None:
            return None
        try:
            record = await self._recorded(issuer, serial_token(serial))
        except UnreadableEventError as error:
            _report(error, serial)
            return None
        ca = chain.ca_pinned(record.ca_spki_sha256) if record is not None else None
        return None if ca is None else (await self.crl_of(issuer, ca)).der

    async def crl_of(self, issuer: str, ca: bytes, partition: Partition | None = None) -> StoredCrl:
        """Return the newest CRL of a CA (DER), or the last one read while the bus is unavailable.

        Calls during a read share the next one. It starts after they were made, so each gets the
        newest CRL as of its call. Raises `BusUnavailableError` if no CRL was ever read.
        """
        key = issuer, ca, partition
        asked = self._next_reads.get(key)
        if asked is None:
            asked = self._next_reads[key] = asyncio.create_task(self._read_next(key))
            asked.add_done_callback(_retrieved)
        return await asyncio.shield(asked)

    async def _read_next(self, key: CrlKey) -> StoredCrl:
        async with self._reading[key]:
            del self._next_reads[key]
            return await self._newest_crl(key)

    async def _newest_crl(self, key: CrlKey) -> StoredCrl:
        known, (issuer, ca, partition) = self._crls.get(key), key
        try:
            head = await newest_head(self.bus, issuer, ca, self.live.current.issuers, partition)
            if head is not None and (known is None or known.head != head):
                known = self._crls[key] = await read_crl(self.bus, head, ca)
        except UnreadableEventError as error:
            SECURITY_EVENTS.labels("crl").inc()
            _log.error("event_not_authentic", issuer=issuer, detail=str(error))
        except SeriesTooLongError as error:
            _log.error("series_too_long", issuer=issuer, detail=str(error))
        except BusUnavailableError:
            if known is None:
                raise
        if known is None:
            raise BusUnavailableError("no CRL has been published yet")
        return known


def _retrieved(read: asyncio.Task[StoredCrl]) -> None:
    """Retrieve the exception of a read whose callers have all gone, so that asyncio stays quiet."""
    if not read.cancelled():
        read.exception()


def _report(error: UnreadableEventError, serial: bytes) -> None:
    SECURITY_EVENTS.labels("certificate").inc()
    _log.error("event_not_authentic", serial=serial.hex(), detail=str(error))


def _own(chain: Chain, issuer: bytes, serial: bytes) -> bytes | None:
    """Return the chain's CA certificate (DER) with this issuer name and serial, or None."""
    name = read_name(issuer)
    for der in (*chain.der, *chain.previous):
        ca = read_certificate(der)
        if ca.serial == serial and read_name(ca.issuer) == name:
            return der
    return None
