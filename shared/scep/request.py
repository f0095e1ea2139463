"""Writing requests, as a client does: PKCSReq and CertPoll (RFC 8894 s3.3.1, s3.3.3)."""

from dataclasses import dataclass

from shared.scep import cms
from shared.scep.algorithms import Digest
from shared.scep.asn1 import OCTET_STRING, PRINTABLE_STRING, SEQUENCE, tlv
from shared.scep.certificate import Certificate
from shared.scep.pkimessage import MESSAGE_TYPE, SENDER_NONCE, TRANSACTION_ID, MessageType


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What names a request: transactionID (printable text), senderNonce, the digest it uses."""

    transaction_id: str
    sender_nonce: bytes
    digest: Digest


def write_request(
    message_type: MessageType,
    payload: bytes,
    head: RequestHead,
    recipient: Certificate,
    sealing: cms.Sealing,
    signer: cms.Signer,
) -> bytes:
    """A pkiMessage around `payload` (a CSR, or an IssuerAndSubject), encrypted to `recipient`."""
    envelope = cms.write_envelope(payload, recipient, sealing)
    number = str(int(message_type)).encode()
    attributes = (
        cms.attribute(MESSAGE_TYPE, tlv(PRINTABLE_STRING, number)),
        cms.attribute(TRANSACTION_ID, tlv(PRINTABLE_STRING, head.transaction_id.encode("ascii"))),
        cms.attribute(SENDER_NONCE, tlv(OCTET_STRING, head.sender_nonce)),
    )
    return cms.write_signed_data(envelope, attributes, head.digest, signer)


def issuer_and_subject(issuer: bytes, subject: bytes) -> bytes:
    """The payload of a CertPoll (RFC 8894 s3.3.3)."""
    return tlv(SEQUENCE, issuer, subject)
