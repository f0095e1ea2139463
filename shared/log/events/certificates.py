"""Events about certificates, their revocation, CRLs and CAs."""

from enum import StrEnum

from shared.log.events.base import NO_REQUEST, EventPayload, SignedEvent
from shared.log.events.commands import RevocationReason


class CertificateRecorded(SignedEvent, frozen=True, kw_only=True):
    """The CERTS index: this serial belongs to this enrollment; appended before it is signed.

    It stands under the serial and under the key. `names_sha256` is of subject and SANs.
    """

    request_sha256: str
    enrollment: str
    spki_sha256: str
    subject: str
    not_before: int
    not_after: int
    serial: str = ""
    ca_spki_sha256: str = ""
    names_sha256: str = ""
    renews: str = ""
    key_uses: int = 0


class CertificateStatus(StrEnum):
    """What became of a certificate after it was issued."""

    REVOKED = "revoked"
    HELD = "held"
    RELEASED = "released"
    REASON_CHANGED = "reason_changed"


class CertificateStatusChanged(SignedEvent, frozen=True, kw_only=True):
    """The CERTS index: a new status of this serial; the newest authentic one counts.

    Each tells all there is to tell: `revoked_at` (Unix seconds) and `reason` are those of the CRL.
    `command` is the sequence of the operator's command in OPS; earlier ones change nothing.
    """

    request_sha256: str
    serial: str
    ca_spki_sha256: str
    status: CertificateStatus
    reason: RevocationReason
    revoked_at: int
    operator: str
    command: int

    @property
    def revoked(self) -> bool:
        """Whether the certificate is revoked now, for good or on hold."""
        return self.status is not CertificateStatus.RELEASED


class KeyCompromised(SignedEvent, frozen=True, kw_only=True):
    """A key whose certificate was revoked for compromise: it is refused for ever."""

    request_sha256: str
    serial: str


class CrlPublished(SignedEvent, frozen=True, kw_only=True):
    """A complete CRL stands in the log, in `chunks` pieces; times are Unix seconds.

    It holds every revocation up to sequence `position` of the CERTS stream.
    """

    issuer: str
    ca_spki_sha256: str
    number: int
    this_update: int
    next_update: int
    chunks: int
    sha256: str
    position: int
    request_sha256: str = NO_REQUEST


class CaChain(EventPayload, frozen=True, kw_only=True):
    """An issuer's certificates as DER, the issuing CA first: what profiles pin by SPKI.

    `previous` are CAs whose certificates still live; `next_signed` is the answer to GetNextCACert,
    signed by the CA, empty where no next CA is planned.
    """

    certificates: tuple[bytes, ...]
    previous: tuple[bytes, ...] = ()
    next_signed: bytes = b""
