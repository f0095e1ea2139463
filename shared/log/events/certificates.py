"""Events about certificates, their revocation, CRLs and CAs."""

from enum import StrEnum
from typing import TYPE_CHECKING

from shared.log.events.base import NO_REQUEST, EventPayload, SignedEvent
from shared.log.events.commands import RevocationReason


class CertificateRecorded(SignedEvent, frozen=True, kw_only=True):
    """An enrollment's serial number in the CERTS index.

    A local CA appends it before it signs the certificate, an external one after it has issued it.
    Stored under the serial number and under the key. `names_sha256` covers subject and SANs. `sid`
    is the account in the extension for it, "" if there is none.
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
    sid: str = ""


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
    `not_after` (Unix seconds) and `spki_sha256` are the certificate's; events of earlier releases
    do not have them.
    """

    request_sha256: str
    serial: str
    ca_spki_sha256: str
    status: CertificateStatus
    reason: RevocationReason
    revoked_at: int
    operator: str
    command: int
    not_after: int = 0
    spki_sha256: str = ""

    @property
    def revoked(self) -> bool:
        """Whether the certificate is revoked now, permanently or on hold."""
        return self.status is not CertificateStatus.RELEASED


class KeyCompromised(SignedEvent, frozen=True, kw_only=True):
    """A key whose certificate was revoked for compromise; it is refused from then on."""

    request_sha256: str
    serial: str


class OrderStep(StrEnum):
    """What became of an order after its intent was recorded.

    `placed`: it is placed again, and one issuer works on it until `lease_until`. `not_placed`: the
    CA certainly does not have it. `pending`: the CA has it and has not decided.
    """

    PLACED = "placed"
    NOT_PLACED = "not_placed"
    PENDING = "pending"


class OrderChanged(SignedEvent, frozen=True, kw_only=True):
    """A step of an order at an external CA, in the CERTS stream; the newest authentic one counts.

    `placement` counts from 0 how often the order was placed, and `lost` how many of the placements
    before it may have been carried out. `lease_until` and `since`, when the order was last placed,
    are Unix seconds. `handle` is the CA's name for the order, "" if it gave none.
    """

    request_sha256: str
    enrollment: str
    issuer: str
    key: str
    step: OrderStep
    placement: int
    since: int
    lost: int = 0
    lease_until: int = 0
    handle: str = ""


class OrphanNoted(SignedEvent, frozen=True, kw_only=True):
    """Base of events about a possible orphan of an order, in one series; the newest counts."""

    if TYPE_CHECKING:
        enrollment: str
        issuer: str
        key: str


class OrphanSuspected(OrphanNoted, frozen=True, kw_only=True):
    """The CA may have made a certificate that no device gets: its answer to an order was lost.

    Recorded before the order is placed again or given up. `placement` counts from 0 the placements
    of the order that may have been carried out.
    """

    request_sha256: str
    enrollment: str
    issuer: str
    key: str
    placement: int
    spki_sha256: str
    ca_spki_sha256: str


class OrphanSettled(OrphanNoted, frozen=True, kw_only=True):
    """A possible orphan is settled: `serials` are the certificates that were revoked at the CA.

    If there are none, the CA made none. `operator` is who said so; "" if the CA did.
    """

    request_sha256: str
    enrollment: str
    issuer: str
    key: str
    serials: tuple[str, ...]
    detail: str
    operator: str = ""


class CrlPublished(SignedEvent, frozen=True, kw_only=True):
    """A CRL is in the log in all its `chunks` pieces; times are Unix seconds.

    It includes every revocation up to sequence `position` of the CERTS stream. Of a CRL that is one
    of several partitions, `partitions` is their number and `partition` counts from 0; of a complete
    CRL both are 0.
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
    partitions: int = 0
    partition: int = 0


class OcspResponseSigned(SignedEvent, frozen=True, kw_only=True):
    """Signed OCSP responses about a certificate, in a numbered series; the newest event counts.

    `responses` holds an OCSPResponse as DER (RFC 6960) by the hash algorithm of its CertID. Times
    are Unix seconds, and `not_after` is the certificate's. `position` is the sequence of the status
    in the CERTS stream that they tell, 0 if the certificate has had none.
    """

    issuer: str
    serial: str
    ca_spki_sha256: str
    this_update: int
    next_update: int
    not_after: int
    position: int
    responses: dict[str, bytes]
    request_sha256: str = NO_REQUEST


class ServiceCertificateIssued(SignedEvent, frozen=True, kw_only=True):
    """A certificate (DER) that the issuer made for a service, not for a device.

    `purpose` is "ocsp" for a key that signs OCSP responses, "ra" for an RA key of gateways.
    """

    issuer: str
    serial: str
    ca_spki_sha256: str
    purpose: str
    certificate: bytes
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
