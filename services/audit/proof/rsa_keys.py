"""Finds recorded certificates whose RSA keys share a prime, from the certificates on the log."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from services.audit.record.log_reader import last_sequence, read
from shared.bus.core import Bus
from shared.log.envelope import Stored, Trusted, UnreadableEventError, authenticate
from shared.log.events.enrollment import CertificateIssued
from shared.log.stages import Stage
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import public_key
from shared.x509.names import name_text

_ENROLLMENTS: Final = "ENROLL_"
_OUTCOME: Final = f".{Stage.OUTCOME}"


@dataclass(frozen=True, slots=True)
class RsaCertificate:
    """A certificate on the log with an RSA key; `not_after` is in Unix seconds."""

    issuer: str
    serial: str
    subject: str
    not_after: int
    modulus: int


async def rsa_certificates(
    bus: Bus, streams: Iterable[str], issuers: Trusted, only: Collection[int] | None = None
) -> AsyncIterator[RsaCertificate]:
    """Yield the certificates with RSA keys that issuers recorded; with one of `only`, if given."""
    for stream in streams:
        if not stream.startswith(_ENROLLMENTS):
            continue
        async for batch in read(bus, stream, 1, await last_sequence(bus, stream)):
            for found in filter(None, (_certificate(each, issuers) for each in batch)):
                if only is None or found.modulus in only:
                    yield found


async def moduli(
    bus: Bus, streams: Iterable[str], issuers: Trusted, advance: Callable[[int], None]
) -> dict[int, None]:
    """Return the moduli of all recorded certificates, once each; `advance` counts certificates."""
    found: dict[int, None] = {}
    async for certificate in rsa_certificates(bus, streams, issuers):
        found[certificate.modulus] = None
        advance(1)
    return found


def _certificate(stored: Stored, issuers: Trusted) -> RsaCertificate | None:
    """Return a message's certificate; None for other events and other keys, and for forgeries."""
    if not stored.subject.endswith(_OUTCOME):
        return None
    try:
        event = authenticate(stored, issuers, Stage.OUTCOME)
        if not isinstance(event, CertificateIssued):
            return None
        certificate = read_certificate(event.certificate)
        key = public_key(certificate.spki)
        if not isinstance(key, rsa.RSAPublicKey):
            return None
        subject = name_text(certificate.subject)
    except (UnreadableEventError, ScepError):
        return None
    modulus = key.public_numbers().n
    return RsaCertificate(event.issuer, event.serial, subject, event.not_after, modulus)
