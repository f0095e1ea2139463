"""Reads from the log what is known of the certificate that a request renews, and of its key."""

from typing import TypeVar

from services.validator.facts import DecryptedRequest, History, KnownCertificate
from shared.bus.core import Bus
from shared.bus.series import Series
from shared.log.envelope import Trusted
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatusChanged,
    KeyCompromised,
)
from shared.log.streams import CERTS
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    key_compromised,
    key_issued,
    parse_prefix,
)

_Record = TypeVar("_Record", CertificateRecorded, CertificateStatusChanged, KeyCompromised)


async def gather(bus: Bus, issuer: str, opened: DecryptedRequest, issuers: Trusted) -> History:
    """Read a request's history; a key that was never certified, the usual case, costs one read.

    Only events that an issuer signed count, including marks against a certificate or a key. An
    event that does not authenticate is reported and skipped, and never hides one that does.
    """
    key = opened.facts.spki_sha256
    renewed = live = None
    if opened.renews:
        place = certificate_issued(issuer, opened.renews)
        record = await _newest(CertificateRecorded, bus, place, issuers)
        renewed = await _known(bus, issuer, record, issuers)
    last = await _newest(CertificateRecorded, bus, key_issued(key, "*", "*"), issuers)
    if last is None:
        return History(renewed)
    if not opened.renews:
        live = await _known(bus, issuer, last, issuers)
    mark = await _newest(KeyCompromised, bus, key_compromised(key, "*"), issuers)
    return History(renewed, live, mark is not None)


async def _known(
    bus: Bus, issuer: str, record: CertificateRecorded | None, issuers: Trusted
) -> KnownCertificate | None:
    if record is None:
        return None
    place = certificate_status(issuer, record.serial, "*")
    status = await _newest(CertificateStatusChanged, bus, place, issuers)
    profile = parse_prefix(record.enrollment).profile
    return KnownCertificate(profile, record, revoked=status is not None and status.revoked)


async def _newest(kind: type[_Record], bus: Bus, wildcard: str, issuers: Trusted) -> _Record | None:
    entry = await Series(bus, CERTS, wildcard, kind, issuers, "certificate").newest()
    return entry.event if entry is not None else None
