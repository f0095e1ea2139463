"""pkiMessage: parse, verify and unwrap a SCEP request in separate steps (RFC 8894 s3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding

from shared.scep import cms, envelope, signed_data
from shared.scep.algorithms import SHA256, AlgorithmPolicy, Digest
from shared.scep.asn1 import (
    INTEGER,
    OCTET_STRING,
    PRINTABLE_STRING,
    Der,
    is_printable,
    is_string,
    object_identifier,
    tlv,
)
from shared.scep.certificate import Certificate
from shared.scep.errors import FailInfo, ScepError

_SCEP: Final = "2.16.840.1.113733.1.9."
MESSAGE_TYPE: Final = object_identifier(_SCEP + "2")
PKI_STATUS: Final = object_identifier(_SCEP + "3")
FAIL_INFO: Final = object_identifier(_SCEP + "4")
SENDER_NONCE: Final = object_identifier(_SCEP + "5")
RECIPIENT_NONCE: Final = object_identifier(_SCEP + "6")
TRANSACTION_ID: Final = object_identifier(_SCEP + "7")
MAX_TRANSACTION_ID: Final = 255
MAX_NONCE: Final = 64
# Each costs a key derivation. Three suffice for a rotation: previous, current and next.
MAX_PASSWORDS: Final = 3
UNKNOWN_TYPE: Final = -1


class MessageType(IntEnum):
    """messageType (RFC 8894 s3.2.1.2)."""

    CERT_REP = 3
    RENEWAL_REQ = 17
    PKCS_REQ = 19
    CERT_POLL = 20
    GET_CERT = 21
    GET_CRL = 22


@dataclass(frozen=True, slots=True)
class TransactionId:
    """transactionID: opaque bytes and the tag of their string type."""

    tag: int
    value: bytes

    def encode(self) -> bytes:
        """Encode the same bytes, as PrintableString if possible (RFC 8894 s3.2.1.1)."""
        plain = self.tag != PRINTABLE_STRING and is_printable(self.value)
        return tlv(PRINTABLE_STRING if plain else self.tag, self.value)

    def text(self) -> str:
        """Return the value for display, with bytes outside ASCII escaped."""
        return self.value.decode("ascii", "backslashreplace")


@dataclass(frozen=True, slots=True)
class PkiMessage:
    """A parsed request with its transaction, nonce and signer; nothing is verified yet.

    `message_type` is the number as sent, even if unknown, or -1 if it is missing or malformed.
    `signed` is the CMS that carried the request.
    """

    message_type: int
    transaction_id: TransactionId
    sender_nonce: bytes
    signed: signed_data.SignedData

    @property
    def signer(self) -> Certificate:
        """The signer's certificate, to which the reply is encrypted."""
        return self.signed.signer

    @property
    def digest(self) -> Digest:
        """The digest for the reply: the request's, or SHA-256 if that is unknown."""
        return self.signed.digest or SHA256


def read_message(data: bytes) -> PkiMessage:
    """Parse a pkiMessage from DER or BER, without verifying it.

    Raises `ScepError` if there is no transaction to reply to: the caller can only answer HTTP 400.
    """
    return cms.read_der_or_ber(data, _read_message)


def _read_message(der: Der) -> PkiMessage:
    signed = signed_data.read_signed_data(der)
    attributes = signed.attributes
    nonce = attributes.get(SENDER_NONCE, (0, b""))
    if nonce[0] != OCTET_STRING or not 0 < len(nonce[1]) <= MAX_NONCE:
        raise ScepError("senderNonce missing or of a wrong size", FailInfo.BAD_REQUEST)
    tag, value = attributes.get(TRANSACTION_ID, (0, b""))
    if not is_string(tag) or not 0 < len(value) <= MAX_TRANSACTION_ID:
        raise ScepError("transactionID missing or of a wrong size", FailInfo.BAD_REQUEST)
    message_type = _number(*attributes.get(MESSAGE_TYPE, (0, b"")))
    return PkiMessage(message_type, TransactionId(tag, value), nonce[1], signed)


def _number(tag: int, contents: bytes) -> int:
    """Parse a messageType: a decimal string, or a bare INTEGER from old clients; else return -1."""
    if tag == INTEGER and len(contents) == 1:
        return contents[0]
    if is_string(tag) and contents.isdigit() and len(contents) <= 3:  # noqa: PLR2004 - 0..255
        return int(contents)
    return UNKNOWN_TYPE


def verify(message: PkiMessage, policy: AlgorithmPolicy) -> None:
    """Check the digest against the profile, then the CMS signature (RFC 8894 s3.1)."""
    if message.signed.digest is not None:
        policy.check(message.signed.digest)
    signed_data.verify(message.signed)


def read_envelope(message: PkiMessage, policy: AlgorithmPolicy) -> envelope.Envelope:
    """Parse the pkcsPKIEnvelope, still encrypted, and check its ciphers against the policy."""
    found = envelope.read_envelope(message.signed.content)
    for cipher in (found.cipher, *(recipient.cipher for recipient in found.passwords)):
        policy.check(cipher)
    return found


class RsaDecryptingKey(Protocol):
    """An RSA private key for decryption, in memory or in a PKCS#11 token."""

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        """Return the plaintext; ValueError if decryption fails."""


@dataclass(frozen=True, slots=True)
class DecryptionKey:
    """An RA's decryption key and its certificate."""

    key: RsaDecryptingKey
    certificate: Certificate


def unwrap_content_key(
    enveloped: envelope.Envelope, keys: Sequence[DecryptionKey], fallback: bytes
) -> bytes:
    """Return the content-encryption key, or `fallback` (cut to size) if unwrapping fails.

    Every failure has the same result: the caller continues with the fallback (random, fresh for
    each message, at least as long as any key) and fails on the content, so that neither the answer
    nor its timing reveals which step failed (RFC 3218). If a single recipient names none of the
    keys, all of them are tried.
    """
    size = enveloped.cipher.key_size
    for recipient in enveloped.recipients:
        named = [k for k in keys if recipient.names(k.certificate)]
        for candidate in named:
            return _decrypt(candidate.key, recipient, size) or fallback[:size]
    if len(enveloped.recipients) == 1:
        for candidate in keys:
            key = _decrypt(candidate.key, enveloped.recipients[0], size)
            if key is not None and _opens(enveloped, key):
                return key
    return fallback[:size]


def unwrap_with_password(
    enveloped: envelope.Envelope, passwords: Sequence[str]
) -> tuple[str, bytes] | None:
    """Return (password, content key) if a password fits the PasswordRecipientInfo, else None.

    Only the wrapped key's own check value decides. Whether the content decrypts does not: that
    would be a padding oracle for altered content.
    """
    for recipient in enveloped.passwords:
        for password in passwords[:MAX_PASSWORDS]:
            key = recipient.unwrap(password)
            if key is not None and len(key) == enveloped.cipher.key_size:
                return password, key
    return None


def _decrypt(key: RsaDecryptingKey, recipient: envelope.Recipient, size: int) -> bytes | None:
    """Return the key if it has the right size: on bad padding OpenSSL returns random bytes."""
    try:
        content_key = key.decrypt(recipient.encrypted_key, recipient.transport.padding())
    except ValueError:
        return None
    return content_key if len(content_key) == size else None


def _opens(enveloped: envelope.Envelope, key: bytes) -> bool:
    try:
        enveloped.decrypt(key)
    except ScepError:
        return False
    return True
