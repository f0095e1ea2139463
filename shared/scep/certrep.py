"""CertRep: write the three replies to a request; parse one as a client (RFC 8894 s3.3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.scep import cms, envelope, signed_data
from shared.scep.algorithms import AnyCipher, Digest
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    OCTET_STRING,
    OID,
    PRINTABLE_STRING,
    SEQUENCE,
    UTF8_STRING,
    Der,
    object_identifier,
    text,
    tlv,
)
from shared.scep.certificate import Certificate
from shared.scep.errors import FailInfo, ScepError
from shared.scep.password import Password
from shared.scep.pkimessage import (
    FAIL_INFO,
    MESSAGE_TYPE,
    PKI_STATUS,
    RECIPIENT_NONCE,
    SENDER_NONCE,
    TRANSACTION_ID,
    MessageType,
    PkiMessage,
    TransactionId,
)
from shared.scep.times import write_time

FAIL_INFO_TEXT: Final = object_identifier("1.3.6.1.5.5.7.24.1")
NONCE_SIZE: Final = 16
_REVOCATION_VALUES: Final = object_identifier("1.2.840.113549.1.9.16.2.24")
_ENUMERATED: Final = 0x0A
_SIGNING_TIME: Final = object_identifier("1.2.840.113549.1.9.5")


class PkiStatus(StrEnum):
    """pkiStatus (RFC 8894 s3.2.1.3)."""

    SUCCESS = "0"
    FAILURE = "2"
    PENDING = "3"


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Fields of a CertRep: those repeated from the request, and its own nonce, time and form.

    `digest` is the request's, raised to the profile's floor. `signing_time` is Unix seconds.
    `without_content` omits eContent from FAILURE and PENDING, which RFC 8894 s3.3.2.2 requires but
    most clients do not.
    """

    transaction_id: TransactionId
    recipient_nonce: bytes
    sender_nonce: bytes
    digest: Digest
    signing_time: int
    without_content: bool = False

    @property
    def no_content(self) -> bytes | None:
        """The eContent of a reply without content: empty, or None to omit it."""
        return None if self.without_content else b""


_DIGEST_STRENGTH: Final = ("md5", "sha1", "sha256", "sha384", "sha512")


def reply_to(
    message: PkiMessage,
    sender_nonce: bytes,
    floor: Digest,
    signing_time: int,
    *,
    without_content: bool = False,
) -> ReplyTo:
    """Return the fields of a reply with the request's digest, or `floor` if that is stronger."""
    digest = max(message.digest, floor, key=lambda d: _DIGEST_STRENGTH.index(d.name))
    return ReplyTo(
        message.transaction_id,
        message.sender_nonce,
        sender_nonce,
        digest,
        signing_time,
        without_content,
    )


def floor_cipher(cipher: AnyCipher, floor: AnyCipher) -> AnyCipher:
    """Return the request's cipher, or `floor` if that is stronger (not legacy, longer key)."""
    return max(cipher, floor, key=lambda c: (not c.legacy, c.key_size))


def _attributes(to: ReplyTo, status: PkiStatus) -> list[bytes]:
    """Return the signed attributes of every CertRep (RFC 8894 s3.2.1); XiPKI needs signingTime."""
    message_type = str(int(MessageType.CERT_REP)).encode()
    return [
        signed_data.attribute(TRANSACTION_ID, to.transaction_id.encode()),
        signed_data.attribute(MESSAGE_TYPE, tlv(PRINTABLE_STRING, message_type)),
        signed_data.attribute(PKI_STATUS, tlv(PRINTABLE_STRING, status.encode())),
        signed_data.attribute(SENDER_NONCE, tlv(OCTET_STRING, to.sender_nonce)),
        signed_data.attribute(RECIPIENT_NONCE, tlv(OCTET_STRING, to.recipient_nonce)),
        signed_data.attribute(_SIGNING_TIME, write_time(to.signing_time)),
    ]


def success(
    to: ReplyTo,
    content: bytes,
    recipient: Certificate | Password,
    content_encryption: envelope.ContentEncryption,
    signer: signed_data.Signer,
    ocsp: bytes = b"",
) -> bytes:
    """Write SUCCESS: a degenerate SignedData (certificates or a CRL), encrypted to the requester.

    `recipient` is the request's signer certificate, or a password if that key cannot decrypt
    (RFC 8894 s3.1, s3.3.2.1). `ocsp` is an OCSPResponse (DER) to carry along, if any.
    """
    enveloped = envelope.write_envelope(content, recipient, content_encryption)
    attributes = _attributes(to, PkiStatus.SUCCESS)
    unsigned = (revocation_values(ocsp),) if ocsp else ()
    return signed_data.write_signed_data(
        enveloped, attributes, to.digest, signer, unsigned=unsigned
    )


def revocation_values(ocsp: bytes) -> bytes:
    """Return the unsigned attribute revocation-values with an OCSPResponse's BasicOCSPResponse.

    RFC 5126 s6.3.4. Clients skip unsigned attributes; a response in the place for CRLs (RFC 5940)
    makes parsers fail that know CRLs only.
    """
    whole = Der(ocsp).enter(SEQUENCE)
    whole.value(_ENUMERATED)
    typed = whole.enter(CONSTRUCTED_0).enter(SEQUENCE)
    typed.value(OID)
    basic = typed.value(OCTET_STRING)
    values = tlv(SEQUENCE, tlv(CONSTRUCTED_0 | 1, tlv(SEQUENCE, basic)))
    return signed_data.attribute(_REVOCATION_VALUES, values)


def failure(to: ReplyTo, fail_info: FailInfo, detail: str, signer: signed_data.Signer) -> bytes:
    """Write FAILURE with failInfo and, unless `detail` is empty, failInfoText (s3.3.2.2)."""
    attributes = _attributes(to, PkiStatus.FAILURE)
    code = tlv(PRINTABLE_STRING, str(int(fail_info)).encode())
    attributes.append(signed_data.attribute(FAIL_INFO, code))
    if detail:
        attributes.append(signed_data.attribute(FAIL_INFO_TEXT, tlv(UTF8_STRING, detail.encode())))
    return signed_data.write_signed_data(to.no_content, attributes, to.digest, signer)


def pending(to: ReplyTo, signer: signed_data.Signer) -> bytes:
    """Write PENDING: the client polls later (s3.3.2.3)."""
    attributes = _attributes(to, PkiStatus.PENDING)
    return signed_data.write_signed_data(to.no_content, attributes, to.digest, signer)


@dataclass(frozen=True, slots=True)
class CertRep:
    """A reply parsed by a client; `signed.content` is the envelope of a SUCCESS."""

    status: PkiStatus
    fail_info: FailInfo | None
    fail_info_text: str
    transaction_id: bytes
    sender_nonce: bytes
    recipient_nonce: bytes
    signed: signed_data.SignedData


def read_reply(data: bytes, known: Sequence[bytes] = ()) -> CertRep:
    """Parse a CertRep from DER or BER and verify its signature.

    The caller must check whose key signed. `known` are certificates (DER) of signers whose replies
    may not include them.
    """
    signed = cms.read_der_or_ber(data, lambda der: signed_data.read_signed_data(der, known))
    signed_data.verify(signed)
    attributes = signed.attributes
    if _value(attributes, MESSAGE_TYPE) != str(int(MessageType.CERT_REP)).encode():
        raise ScepError("not a CertRep")
    code = _value(attributes, FAIL_INFO)
    tag, detail = attributes.get(FAIL_INFO_TEXT, (UTF8_STRING, b""))
    try:
        status = PkiStatus(_value(attributes, PKI_STATUS).decode("ascii"))
        fail_info = FailInfo(int(code)) if code else None
    except ValueError:
        raise ScepError("pkiStatus or failInfo unknown") from None
    return CertRep(
        status,
        fail_info,
        text(tag, detail),
        _value(attributes, TRANSACTION_ID),
        _value(attributes, SENDER_NONCE),
        _value(attributes, RECIPIENT_NONCE),
        signed,
    )


def _value(attributes: dict[bytes, tuple[int, bytes]], oid: bytes) -> bytes:
    return attributes.get(oid, (0, b""))[1]


def read_certificates(plaintext: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a decrypted SUCCESS, in their order."""
    return cms.read_der_or_ber(plaintext, signed_data.read_certs_only)


def read_crls(plaintext: bytes) -> tuple[bytes, ...]:
    """Return the CRLs of a decrypted answer to GetCRL."""
    return cms.read_der_or_ber(plaintext, signed_data.read_crl_only)
