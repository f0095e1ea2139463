"""Requests written by a client, and payloads other than CSRs (RFC 8894 s3.3)."""

from dataclasses import dataclass
from typing import Final

from shared.scep import cms, envelope, signed_data
from shared.scep.algorithms import Digest
from shared.scep.asn1 import INTEGER, OCTET_STRING, PRINTABLE_STRING, SEQUENCE, Der, tlv
from shared.scep.certificate import Certificate
from shared.scep.errors import ScepError
from shared.scep.password import Password
from shared.scep.pkimessage import MESSAGE_TYPE, SENDER_NONCE, TRANSACTION_ID, MessageType
from shared.scep.streamed import streamed

# RFC 5280 s4.1.2.2 allows 20 octets; some CAs wrote more.
_MAX_SERIAL: Final = 32


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Header fields of a request: transactionID (PrintableString text), senderNonce and digest."""

    transaction_id: str
    sender_nonce: bytes
    digest: Digest


def write_request(
    message_type: MessageType,
    payload: bytes,
    head: RequestHead,
    recipient: Certificate | Password,
    content_encryption: envelope.ContentEncryption,
    signer: signed_data.Signer,
    *,
    ber: bool = False,
) -> bytes:
    """Write a pkiMessage with `payload` (such as a CSR) encrypted to `recipient`.

    `ber` writes it like streaming writers do: indefinite lengths, content in segments.
    """
    content = envelope.write_envelope(payload, recipient, content_encryption)
    content = streamed(content) if ber else content
    number = str(int(message_type)).encode()
    attributes = (
        signed_data.attribute(MESSAGE_TYPE, tlv(PRINTABLE_STRING, number)),
        signed_data.attribute(
            TRANSACTION_ID, tlv(PRINTABLE_STRING, head.transaction_id.encode("ascii"))
        ),
        signed_data.attribute(SENDER_NONCE, tlv(OCTET_STRING, head.sender_nonce)),
    )
    message = signed_data.write_signed_data(content, attributes, head.digest, signer)
    return streamed(message) if ber else message


def issuer_and_subject(issuer: bytes, subject: bytes) -> bytes:
    """Encode the payload of a CertPoll (RFC 8894 s3.3.3)."""
    return tlv(SEQUENCE, issuer, subject)


def issuer_and_serial(issuer: bytes, serial: bytes) -> bytes:
    """Encode the payload of GetCert and GetCRL from a Name and a serial (RFC 8894 s3.3.4).

    `serial` is an INTEGER's contents.
    """
    return tlv(SEQUENCE, issuer, tlv(INTEGER, serial))


def read_issuer_and_serial(payload: bytes) -> tuple[bytes, bytes]:
    """Return (issuer Name as DER, serial number's contents) of a GetCert or GetCRL payload."""
    return cms.read_der_or_ber(payload, _read_issuer_and_serial)


def _read_issuer_and_serial(der: Der) -> tuple[bytes, bytes]:
    body = der.enter(SEQUENCE)
    issuer, serial = body.element(SEQUENCE), body.value(INTEGER)
    body.finish()
    if not 0 < len(serial) <= _MAX_SERIAL:
        raise ScepError("serial number of a wrong size")
    return issuer, serial
