"""pkiMessage: what a SCEP request says, checked step by step (RFC 8894 s3.2)."""

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
# Each costs a key derivation: the current one, and those before and after it while rotating.
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
    """transactionID: opaque bytes and the string type they came as."""

    tag: int
    value: bytes

    def encode(self) -> bytes:
        """The same bytes, as PrintableString where they can be (RFC 8894 s3.2.1.1)."""
        plain = self.tag != PRINTABLE_STRING and is_printable(self.value)
        return tlv(PRINTABLE_STRING if plain else self.tag, self.value)

    def text(self) -> str:
        """For people: what does not decode is shown escaped."""
        return self.value.decode("ascii", "backslashreplace")


@dataclass(frozen=True, slots=True)
class PkiMessage:
    """A request of which transaction, nonce and signer are known; nothing is verified yet.

    `message_type` is the number as sent, known or not (-1: there is none); `signed` is the CMS
    it came in.
    """

    message_type: int
    transaction_id: TransactionId
    sender_nonce: bytes
    signed: signed_data.SignedData

    @property
    def signer(self) -> Certificate:
        """The certificate whose key signed, and to which a reply is encrypted."""
        return self.signed.signer

    @property
    def digest(self) -> Digest:
        """The digest to answer with; SHA-256 where the request's is unknown."""
        return self.signed.digest or SHA256


def read_message(data: bytes) -> PkiMessage:
    """A pkiMessage from DER or BER, unverified.

    Raises `ScepError` where there is no transaction to answer: the caller can only say 400.
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
    """messageType: a decimal PrintableString, or the bare INTEGER of old clients; else -1."""
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
    """The pkcsPKIEnvelope, still encrypted; its cipher checked against the profile."""
    found = envelope.read_envelope(message.signed.content)
    for cipher in (found.cipher, *(recipient.cipher for recipient in found.passwords)):
        policy.check(cipher)
    return found


class RsaDecryptingKey(Protocol):
    """An RSA private key that decrypts, in memory or in a token."""

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        """The plaintext; ValueError where there is none."""


@dataclass(frozen=True, slots=True)
class DecryptionKey:
    """An RA's decryption key and the certificate it was published in."""

    key: RsaDecryptingKey
    certificate: Certificate


def unwrap_content_key(
    enveloped: envelope.Envelope, keys: Sequence[DecryptionKey], fallback: bytes
) -> bytes:
    """The content-encryption key, or `fallback` where it cannot be had.

    A fixed outcome for every failure: the caller continues with the fallback (random, new for
    each message, at least as long as any key) and fails on the content, so that neither an
    answer nor its time says which step it was (RFC 3218). Several keys are tried only where the
    recipient names none of them.
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
    """(password, content key) where one of the passwords fits the PasswordRecipientInfo.

    The wrapped key's own check decides, never whether the content decrypts: that would tell who
    altered it about its padding.
    """
    for recipient in enveloped.passwords:
        for password in passwords[:MAX_PASSWORDS]:
            key = recipient.unwrap(password)
            if key is not None and len(key) == enveloped.cipher.key_size:
                return password, key
    return None


def _decrypt(key: RsaDecryptingKey, recipient: envelope.Recipient, size: int) -> bytes | None:
    """The key if RSA gave one of the right size; OpenSSL answers bad padding with random bytes."""
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
