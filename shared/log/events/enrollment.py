"""Events of one enrollment, from request to outcome."""

import msgspec

from shared.log.events.base import EventPayload, SignedEvent
from shared.log.events.state import (
    Claim,
)
from shared.log.reasons import Reason
from shared.scep.errors import FailInfo


class EnrollmentRequested(EventPayload, frozen=True, kw_only=True):
    """A device's request: its pkiMessage as received, the content key sealed to the validators."""

    pki_message: bytes
    content_key: bytes
    sealing_key: str
    transaction_id: str
    message_type: int
    signer_sha256: str
    client_address: str
    gateway: str
    reply_budget_ms: int
    sealed_attempt: int | None = None  # if retried: the attempt whose subject the key is sealed to


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the CSR contains, without its secrets, and its fleet, for the record.

    `subject` and `sans` are those of the certificate once the profile's templates have built them.

    `challenge` is the kind of verifier that handled the request, "none" if the CSR had no
    challenge; `device_id` is the GUID of an IntuneDeviceId URI.
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
    """The result of one gate and what it compared; never contains a secret."""

    gate: str
    passed: bool
    detail: str = ""


class TemplateExtension(msgspec.Struct, frozen=True, kw_only=True):
    """An extension of the certificate to issue: dotted OID, criticality, DER value."""

    oid: str
    critical: bool
    value: bytes


class CertificateTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in the certificate to sign except the serial number; times are Unix seconds."""

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


class AssignedNames(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the certificate where the profile builds them or has SIDs, not the CSR.

    `subject` and `san` are DER, `san` is empty if there is none; `sid` is an account's, or "".
    """

    subject: bytes
    san: bytes = b""
    sid: str = ""


class EnrollmentHeld(SignedEvent, frozen=True, kw_only=True):
    """All gates passed and the profile requires an operator's decision. Not terminal.

    `assigned` is what the operator approves besides the CSR, if the profile does not copy it.
    """

    request_sha256: str
    facts: Facts
    gates: tuple[GateResult, ...]
    claim: Claim | None = None
    assigned: AssignedNames | None = None


class HoldDecided(SignedEvent, frozen=True, kw_only=True):
    """An operator's decision on a held enrollment; the validator turns it into a verdict."""

    request_sha256: str
    approved: bool
    operator: str
    note: str = ""


class EnrollmentApproved(SignedEvent, frozen=True, kw_only=True):
    """The validator's approval: the template, and until when (Unix seconds) it may be signed.

    `existing`, if set, is the serial number of the key's live certificate, which is then returned
    instead of a new one. `csr` is the CSR for an external CA, sealed to the issuers' key `csr_key`.
    With `staple` the outcome carries an OCSP response. `confirmed_by`, if set, is the connection
    whose service is notified of the certificate; `withheld` says that the device gets it only then.
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
    csr: bytes = b""
    csr_key: str = ""
    staple: bool = False
    confirmed_by: str = ""
    withheld: bool = False


class EnrollmentRejected(SignedEvent, frozen=True, kw_only=True):
    """The validator's rejection. Terminal."""

    request_sha256: str
    reason: Reason
    fail_info: FailInfo
    detail: str
    facts: Facts | None = None
    gates: tuple[GateResult, ...] = ()
    claim: Claim | None = None


class CertificateOrdered(SignedEvent, frozen=True, kw_only=True):
    """The intent to order a certificate from a CA, recorded before the CA is asked.

    `key` identifies the order at the CA, so that it can be found again and is never placed twice.
    Until `lease_until` (Unix seconds) only the issuer that wrote this works on it. Not terminal.
    """

    request_sha256: str
    issuer: str
    key: str
    lease_until: int


class CertificateIssued(SignedEvent, frozen=True, kw_only=True):
    """The issued certificate, as DER. Terminal, unless it is `withheld` until its confirmation.

    `ocsp` is an OCSP response about it (DER) if the profile wants one in the reply; it is valid
    until `ocsp_until` (Unix seconds). `confirmed_by` is as in the approval.
    """

    request_sha256: str
    issuer: str
    serial: str
    certificate: bytes
    not_after: int
    ocsp: bytes = b""
    ocsp_until: int = 0
    confirmed_by: str = ""
    withheld: bool = False


class IssuanceFailed(SignedEvent, frozen=True, kw_only=True):
    """The issuer could not issue or refused to. Terminal."""

    request_sha256: str
    reason: Reason
    fail_info: FailInfo
    detail: str


class CertificateConfirmed(SignedEvent, frozen=True, kw_only=True):
    """The service of a connection was notified of a withheld certificate and accepted it. Terminal.

    `first` is the subject prefix of the enrollment whose certificate this one repeats, if the
    service was notified of it then, else "". `activity` identifies the call in the service's own
    records.
    """

    request_sha256: str
    connection: str
    serial: str
    activity: str = ""
    first: str = ""


class ConfirmationFailed(SignedEvent, frozen=True, kw_only=True):
    """A withheld certificate stays withheld: its service did not accept it. Terminal.

    `withdrawn` says that the certificate was made by this enrollment and is to be revoked.
    """

    request_sha256: str
    connection: str
    serial: str
    reason: Reason
    fail_info: FailInfo
    detail: str
    withdrawn: bool = False


Terminal = EnrollmentRejected | CertificateIssued | IssuanceFailed | ConfirmationFailed
