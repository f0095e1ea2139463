"""Writing requests, as a client does: PKCSReq and CertPoll (RFC 8894 s3.3.1, s3.3.3)."""

from dataclasses import dataclass

from shared.scep import envelope, signed_data
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
    sealing: envelope.Sealing,
    signer: signed_data.Signer,
) -> bytes:
    """A pkiMessage around `payload` (a CSR, or an IssuerAndSubject), encrypted to `recipient`."""
    content = envelope.write_envelope(payload, recipient, sealing)
    number = str(int(message_type)).encode()
    attributes = (
        signed_data.attribute(MESSAGE_TYPE, tlv(PRINTABLE_STRING, number)),
        signed_data.attribute(
            TRANSACTION_ID, tlv(PRINTABLE_STRING, head.transaction_id.encode("ascii"))
        ),
        signed_data.attribute(SENDER_NONCE, tlv(OCTET_STRING, head.sender_nonce)),
    )
    return signed_data.write_signed_data(content, attributes, head.digest, signer)


def issuer_and_subject(issuer: bytes, subject: bytes) -> bytes:
    """The payload of a CertPoll (RFC 8894 s3.3.3)."""
    return tlv(SEQUENCE, issuer, subject)
