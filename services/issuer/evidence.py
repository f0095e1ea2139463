"""What a stored request proves without its secrets: that a device asked, and which one. Pure.

The CSR is encrypted to the validators. Public are the device's signature over its message, the
signer's certificate and the transaction, from which the enrollment's subject is made.
"""

from shared.log.envelope import Stored, UnreadableEventError, decode
from shared.log.events.enrollment import EnrollmentApproved, EnrollmentRequested
from shared.log.subjects import (
    NO_RENEWAL,
    EnrollmentId,
    csr_token,
    serial_token,
    transaction_token,
)
from shared.scep.algorithms import AlgorithmPolicy
from shared.scep.errors import ScepError
from shared.scep.pkimessage import MessageType, PkiMessage, read_message, verify
from shared.x509.csr import read_csr, verify_self_signature

# The validator enforces a profile's algorithms; here every known algorithm verifies.
_EVERY_ALGORITHM = AlgorithmPolicy(legacy=True)
_ENROLLING = (MessageType.PKCS_REQ, MessageType.RENEWAL_REQ)


def unsupported(enrollment: EnrollmentId, request: Stored, verdict: EnrollmentApproved) -> str:
    """Return why the stored request does not support the verdict, "" if it does."""
    if request.sha256() != verdict.request_sha256:
        return "the verdict is for a different request than the stored one"
    try:
        message = _message(request)
    except (UnreadableEventError, ScepError):
        return "the stored request has no message signed by a device"
    if _transaction(enrollment, message) != enrollment.transaction:
        return "the stored request belongs to another transaction"
    if verdict.renews and verdict.renews.serial != serial_token(message.signer.serial):
        return "the stored request is not signed with the certificate to renew"
    return ""


def unrelated(enrollment: EnrollmentId, verdict: EnrollmentApproved, csr: bytes) -> str:
    """Return why a CSR (DER) that a validator passed on is not the enrollment's, "" if it is.

    The enrollment's subject contains a digest of the CSR, and the template its key.
    """
    renews = bytes.fromhex(verdict.renews.serial) if verdict.renews else b""
    try:
        found = read_csr(csr)
        verify_self_signature(found)
    except ScepError as error:
        return f"the CSR for the CA does not verify: {error.detail}"
    if found.spki != verdict.template.spki:
        return "the CSR for the CA is for another key"
    if enrollment.csr not in {csr_token(found.info, by) for by in (b"", renews, NO_RENEWAL)}:
        return "the CSR for the CA is not that of the enrollment"
    return ""


def _message(request: Stored) -> PkiMessage:
    """Return the device's message; its signature verifies, and it asks for a certificate."""
    event = decode(request.payload, request.headers)
    if not isinstance(event, EnrollmentRequested):
        raise UnreadableEventError("not a request event")
    message = read_message(event.pki_message)
    verify(message, _EVERY_ALGORITHM)
    if message.message_type not in _ENROLLING:
        raise ScepError("does not request a certificate")
    return message


def _transaction(enrollment: EnrollmentId, message: PkiMessage) -> str:
    value = message.transaction_id.value
    return transaction_token(enrollment.profile, value, message.signer.spki)
