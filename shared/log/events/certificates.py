"""Events about certificates, their revocation, CRLs and CAs."""

from enum import StrEnum

from shared.log.events.base import NO_REQUEST, EventPayload, SignedEvent
from shared.log.events.commands import RevocationReason


class CertificateRecorded(SignedEvent, frozen=True, kw_only=True):
    """An enrollment's serial number in the CERTS index.

    A local CA appends it before it signs the certificate, an external one after it has issued it.
    Stored under the serial number and under the key. `names_sha256` covers subject and SANs.
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
    """Changes of a certificate's status after it was issued."""

    REVOKED = "revoked"
    HELD = "held"
    RELEASED = "released"
    REASON_CHANGED = "reason_changed"


class CertificateStatusChanged(SignedEvent, frozen=True, kw_only=True):
    """A new status of a serial number in the CERTS index; the newest authentic one counts.

    Each event is complete: `revoked_at` (Unix seconds) and `reason` are those of the CRL. `command`
    is the sequence of the operator's command in OPS; commands before it change nothing any more.
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
        """Whether the certificate is revoked now, permanently or on hold."""
        return self.status is not CertificateStatus.RELEASED


class KeyCompromised(SignedEvent, frozen=True, kw_only=True):
    """A key whose certificate was revoked for compromise; it is refused from then on."""

    request_sha256: str
    serial: str


class CrlPublished(SignedEvent, frozen=True, kw_only=True):
    """A complete CRL is in the log, in `chunks` pieces; times are Unix seconds.

    It includes every revocation up to sequence `position` of the CERTS stream.
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
    """An issuer's CA chain as DER, the issuing CA first; SCEP profiles pin it by SPKI.

    `previous` are earlier CAs whose certificates are still in use. `next_signed` announces the next
    CA in a SignedData by the CA's key; empty if no next CA is planned. Gateways copy it into their
    reply to GetNextCACert: see docs/decisions/0027.
    """

    certificates: tuple[bytes, ...]
    previous: tuple[bytes, ...] = ()
    next_signed: bytes = b""
