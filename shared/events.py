"""The events of the log, as values: past tense, frozen, additive, versioned.

A field is never renamed or removed and a new one has a default: any version of a service reads
any version of an event. tests/golden holds one file for every version ever written.
"""

from enum import StrEnum
from typing import Final, get_args

import msgspec

from shared.access_events import (
    ChallengeClaimed,
    CheckpointSigned,
    Claim,
    DeviceCounted,
    GatewaySeen,
    ReplicaSeen,
    StreamMeasured,
)
from shared.order_events import OrderAnswered, Ordered, RevocationReason
from shared.payload import NO_REQUEST, EventPayload
from shared.reasons import Reason
from shared.scep.errors import FailInfo


class EnrollmentRequested(EventPayload, frozen=True, kw_only=True):
    """A device asks: its PKIMessage as received, the content key sealed to the validators."""

    pki_message: bytes
    content_key: bytes
    sealing_key: str
    transaction_id: str
    message_type: int
    signer_sha256: str
    client_address: str
    gateway: str
    reply_budget_ms: int
    sealed_attempt: int | None = None  # whose subject the key is sealed for, if driven again


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the CSR says, without its secrets, and of which fleet it is: for the record.

    `challenge` is the kind of verifier that judged it, "none" where the CSR brought nothing;
    `device_id` is the GUID of an IntuneDeviceId URI.
    """

    subject: str
    sans: tuple[str, ...]
    key_type: str
    key_bits: int
    spki_sha256: str
    csr_sha256: str
    challenge: str
    device_id: str = ""
    fleet: str = ""


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One gate's answer and what it compared, never a secret."""

    gate: str
    passed: bool
    detail: str = ""


class TemplateExtension(msgspec.Struct, frozen=True, kw_only=True):
    """An extension of the certificate to be: dotted OID, criticality, DER value."""

    oid: str
    critical: bool
    value: bytes


class CertificateTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly what is to be signed, but for the serial number; times are Unix seconds."""

    issuer: str
    ca_spki_sha256: str
    subject: bytes
    spki: bytes
    not_before: int
    not_after: int
    extensions: tuple[TemplateExtension, ...]


class RenewedCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate that a renewal replaces; `key_uses` counts renewals with the same key."""

    serial: str
    not_after: int
    key_uses: int


class EnrollmentHeld(EventPayload, frozen=True, kw_only=True):
    """All gates are open and the profile wants an operator's word. Not terminal."""

    request_sha256: str
    facts: Facts
    gates: tuple[GateResult, ...]
    claim: Claim | None = None


class HoldDecided(EventPayload, frozen=True, kw_only=True):
    """The operator's word on a held enrollment; the validator turns it into a verdict."""

    request_sha256: str
    approved: bool
    operator: str
    note: str = ""


class EnrollmentApproved(EventPayload, frozen=True, kw_only=True):
    """The validator's yes: the template to sign, and until when (Unix seconds) it may be.

    `existing` is the serial of the key's live certificate, which is then the answer instead.
    """

    request_sha256: str
    gateway: str
    facts: Facts
    gates: tuple[GateResult, ...]
    template: CertificateTemplate
    valid_until: int
    renews: RenewedCertificate | None = None
    existing: str = ""
    claim: Claim | None = None


class EnrollmentRejected(EventPayload, frozen=True, kw_only=True):
    """The validator's no. Terminal."""

    request_sha256: str
    reason: Reason
    fail_info: FailInfo
    detail: str
    facts: Facts | None = None
    gates: tuple[GateResult, ...] = ()
    claim: Claim | None = None


class CertificateIssued(EventPayload, frozen=True, kw_only=True):
    """The certificate, as DER. Terminal."""

    request_sha256: str
    issuer: str
    serial: str
    certificate: bytes
    not_after: int


class IssuanceFailed(EventPayload, frozen=True, kw_only=True):
    """The issuer could not or would not. Terminal."""

    request_sha256: str
    reason: Reason
    fail_info: FailInfo
    detail: str


class CertificateRecorded(EventPayload, frozen=True, kw_only=True):
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


class CertificateStatusChanged(EventPayload, frozen=True, kw_only=True):
    """The CERTS index: a new status of this serial; the newest authentic one counts.

    Each tells all there is to tell: `revoked_at` (Unix seconds) and `reason` are those of the CRL.
    `order` is the sequence of the operator's order in OPS; orders before it change nothing more.
    """

    request_sha256: str
    serial: str
    ca_spki_sha256: str
    status: CertificateStatus
    reason: RevocationReason
    revoked_at: int
    operator: str
    order: int

    @property
    def revoked(self) -> bool:
        """Whether the certificate is revoked now, for good or on hold."""
        return self.status is not CertificateStatus.RELEASED


class KeyCompromised(EventPayload, frozen=True, kw_only=True):
    """A key whose certificate was revoked for compromise: it is refused for ever."""

    request_sha256: str
    serial: str


class CrlPublished(EventPayload, frozen=True, kw_only=True):
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


class DeadLetter(EventPayload, frozen=True, kw_only=True):
    """A message that a worker gave up on: where it stands and how often it was tried."""

    subject: str
    stream: str
    sequence: int
    deliveries: int
    role: str


Event = (
    EnrollmentRequested
    | EnrollmentHeld
    | HoldDecided
    | EnrollmentApproved
    | EnrollmentRejected
    | CertificateIssued
    | IssuanceFailed
    | CertificateRecorded
    | Ordered
    | OrderAnswered
    | CertificateStatusChanged
    | KeyCompromised
    | CrlPublished
    | CaChain
    | ChallengeClaimed
    | DeviceCounted
    | ReplicaSeen
    | StreamMeasured
    | GatewaySeen
    | CheckpointSigned
    | DeadLetter
)
Terminal = EnrollmentRejected | CertificateIssued | IssuanceFailed
EVENT_TYPES: Final[dict[str, type[Event]]] = {kind.__name__: kind for kind in get_args(Event)}
VERSIONS: Final[dict[str, int]] = dict.fromkeys(EVENT_TYPES, 1)
