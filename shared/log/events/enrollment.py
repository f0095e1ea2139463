"""Events of one enrollment, from request to outcome."""

import msgspec

from shared.log.events.base import EventPayload, SignedEvent
from shared.log.events.state import (
    Claim,
)
from shared.log.reasons import Reason
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
    sealed_attempt: int | None = None  # whose subject the key is sealed for, if retried


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


class EnrollmentHeld(SignedEvent, frozen=True, kw_only=True):
    """All gates are open and the profile wants an operator's word. Not terminal."""

    request_sha256: str
    facts: Facts
    gates: tuple[GateResult, ...]
    claim: Claim | None = None


class HoldDecided(SignedEvent, frozen=True, kw_only=True):
    """The operator's word on a held enrollment; the validator turns it into a verdict."""

    request_sha256: str
    approved: bool
    operator: str
    note: str = ""


class EnrollmentApproved(SignedEvent, frozen=True, kw_only=True):
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


class EnrollmentRejected(SignedEvent, frozen=True, kw_only=True):
    """The validator's no. Terminal."""

    request_sha256: str
    reason: Reason
    fail_info: FailInfo
    detail: str
    facts: Facts | None = None
    gates: tuple[GateResult, ...] = ()
    claim: Claim | None = None


class CertificateOrdered(SignedEvent, frozen=True, kw_only=True):
    """The intent to order a certificate from a CA, recorded before the CA is asked.

    `key` names the order at the CA, so that it is found again and never made twice. Until
    `lease_until` (Unix seconds) only the issuer that wrote this works on it. Not terminal.
    """

    request_sha256: str
    issuer: str
    key: str
    lease_until: int


class CertificateIssued(SignedEvent, frozen=True, kw_only=True):
    """The certificate, as DER. Terminal."""

    request_sha256: str
    issuer: str
    serial: str
    certificate: bytes
    not_after: int


class IssuanceFailed(SignedEvent, frozen=True, kw_only=True):
    """The issuer could not or would not. Terminal."""

    request_sha256: str
    reason: Reason
    fail_info: FailInfo
    detail: str


Terminal = EnrollmentRejected | CertificateIssued | IssuanceFailed
