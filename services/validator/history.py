"""What the log knows about the certificate a request renews, and about the key it brings."""

from typing import TypeVar

import structlog

from services.validator.facts import History, KnownCertificate, Opened
from shared.bus.core import Bus
from shared.bus.topology import CERTS
from shared.events import CertificateRecorded, CertificateRevoked, KeyCompromised
from shared.stored import Stored, Trusted, UnreadableEventError, authenticate_as
from shared.subjects import (
    certificate_issued,
    certificate_revoked,
    key_compromised,
    key_issued,
    parse_prefix,
)
from shared.telemetry import SECURITY_EVENTS

_log = structlog.get_logger()
_Record = TypeVar("_Record", CertificateRecorded, CertificateRevoked, KeyCompromised)


async def gather(bus: Bus, issuer: str, opened: Opened, issuers: Trusted) -> History:
    """Read it; a key that was never certified, as most, costs one look.

    What does not authenticate is reported; then a certificate is unknown, a mark against it holds.
    """
    key = opened.facts.spki_sha256
    renewed = live = None
    if opened.renews:
        stored = await bus.get_last(CERTS, certificate_issued(issuer, opened.renews))
        renewed = await _known(bus, issuer, stored, issuers)
    last = await bus.get_last(CERTS, key_issued(key, "*", "*"))
    if last is None:
        return History(renewed)
    if not opened.renews:
        live = await _known(bus, issuer, last, issuers)
    marked = await bus.get_last(CERTS, key_compromised(key))
    _authentic(KeyCompromised, marked, issuers)
    return History(renewed, live, marked is not None)


async def _known(
    bus: Bus, issuer: str, stored: Stored | None, issuers: Trusted
) -> KnownCertificate | None:
    record = _authentic(CertificateRecorded, stored, issuers)
    if record is None:
        return None
    revocation = await bus.get_last(CERTS, certificate_revoked(issuer, record.serial))
    _authentic(CertificateRevoked, revocation, issuers)
    profile = parse_prefix(record.enrollment).profile
    return KnownCertificate(profile, record, revoked=revocation is not None)


def _authentic(kind: type[_Record], stored: Stored | None, issuers: Trusted) -> _Record | None:
    """The event, if a known issuer wrote it."""
    if stored is None:
        return None
    try:
        return authenticate_as(kind, stored, issuers)
    except UnreadableEventError as error:
        SECURITY_EVENTS.labels("certificate").inc()
        _log.error("event_not_authentic", about=stored.subject, detail=str(error))
        return None
