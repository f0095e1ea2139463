"""EnvelopedData and AuthEnvelopedData: parse, decrypt and write (RFC 5652 s6, RFC 5083)."""

from dataclasses import dataclass
from typing import Final

from shared.scep.algorithms import (
    AES128,
    AES256,
    AnyCipher,
    AuthenticatedCipher,
    ContentCipher,
    KeyTransport,
    read_authenticated_cipher,
    read_cipher,
    read_key_transport,
)
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    CONTEXT_0,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    SET,
    Der,
    integer,
    tlv,
)
from shared.scep.certificate import Certificate
from shared.scep.cms import (
    AUTH_ENVELOPED_DATA,
    DATA,
    ENVELOPED_DATA,
    any_content_info,
    read_der_or_ber,
    segments,
    write_content_info,
)
from shared.scep.errors import FailInfo, ScepError
from shared.scep.password import TAG as PASSWORD
from shared.scep.password import (
    Password,
    PasswordRecipient,
    read_password_recipient,
    write_password_recipient,
)
from shared.scep.schemes import rsa_public_key

_MAX_RECIPIENTS: Final = 16
_PKCS1_OVERHEAD: Final = 11


@dataclass(frozen=True, slots=True)
class Recipient:
    """A KeyTransRecipientInfo: `issuer` and `serial`, or `key_id`, and the encrypted key."""

    issuer: bytes | None
    serial: bytes | None
    key_id: bytes | None
    transport: KeyTransport
    encrypted_key: bytes

    def names(self, certificate: Certificate) -> bool:
        """Return whether the RecipientInfo names this certificate."""
        if self.key_id is not None:
            return self.key_id == certificate.key_id
        return (self.issuer, self.serial) == (certificate.issuer, certificate.serial)


@dataclass(frozen=True, slots=True)
class Envelope:
    """An EnvelopedData or AuthEnvelopedData: its recipients and the encrypted content.

    `tag` and `associated` (the authenticated attributes as a SET) are empty for an EnvelopedData.
    """

    recipients: tuple[Recipient, ...]
    passwords: tuple[PasswordRecipient, ...]
    cipher: AnyCipher
    iv: bytes
    ciphertext: bytes
    tag: bytes = b""
    associated: bytes = b""

    def decrypt(self, key: bytes) -> bytes:
        """Decrypt the content; every failure raises the same `ScepError`."""
        if len(key) != self.cipher.key_size:
            raise ScepError("content does not decrypt")
        if isinstance(self.cipher, AuthenticatedCipher):
            tag, associated = self.tag, self.associated
            return self.cipher.decrypt(key, self.iv, self.ciphertext, tag, associated)
        return self.cipher.decrypt(key, self.iv, self.ciphertext)


@dataclass(frozen=True, slots=True)
class ContentEncryption:
    """How to encrypt an envelope: the algorithms and a single-use key and IV."""

    cipher: AnyCipher
    transport: KeyTransport
    key: bytes
    iv: bytes


def read_envelope(data: bytes) -> Envelope:
    """Parse the envelope of a ContentInfo in DER or BER."""
    return read_der_or_ber(data, _read_envelope)


def _read_envelope(der: Der) -> Envelope:
    content_type, content = any_content_info(der)
    if content_type == AUTH_ENVELOPED_DATA:
        return _authenticated(content.enter(SEQUENCE))
    if content_type != ENVELOPED_DATA:
        raise ScepError("unexpected content type")
    body = content.enter(SEQUENCE)
    recipients, passwords = _recipients(body)
    content = body.enter(SEQUENCE)
    content.element(OID)
    cipher, iv = read_cipher(content)
    return Envelope(recipients, passwords, cipher, iv, _ciphertext(content))


def _authenticated(body: Der) -> Envelope:
    """Parse an AuthEnvelopedData (RFC 5083 s2.1), whose attributes are authenticated as a SET."""
    recipients, passwords = _recipients(body)
    content = body.enter(SEQUENCE)
    content.element(OID)
    cipher, nonce, size = read_authenticated_cipher(content)
    ciphertext, associated = _ciphertext(content), b""
    if body.next_is(CONSTRUCTED_0 | 1):
        associated = tlv(SET, body.value(CONSTRUCTED_0 | 1))
    tag = body.value(OCTET_STRING)
    if len(tag) != size:
        raise ScepError("tag of the wrong size")
    return Envelope(recipients, passwords, cipher, nonce, ciphertext, tag, associated)


def _recipients(body: Der) -> tuple[tuple[Recipient, ...], tuple[PasswordRecipient, ...]]:
    """Return the KeyTrans and password recipients; other kinds are skipped (RFC 5652 s6.2)."""
    body.value(INTEGER)
    body.skip_if(CONSTRUCTED_0)  # originatorInfo
    infos = body.enter(SET)
    recipients, passwords = [], []
    while infos.more():
        if infos.next_is(SEQUENCE):
            recipients.append(_recipient(infos.enter(SEQUENCE)))
        elif infos.next_is(PASSWORD):
            passwords.append(read_password_recipient(infos.enter(PASSWORD)))
        else:
            infos.element()
        if len(recipients) > _MAX_RECIPIENTS or len(passwords) > 1:
            raise ScepError("too many recipients")
    return tuple(recipients), tuple(passwords)


def _ciphertext(content: Der) -> bytes:
    """Return encryptedContent: [0] primitive, or constructed from OCTET STRINGs.

    Go's encoders write the latter around a single OCTET STRING, BER writers around segments.
    """
    if content.next_is(CONTEXT_0):
        return content.value(CONTEXT_0)
    return segments(content.enter(CONSTRUCTED_0))


def _recipient(info: Der) -> Recipient:
    """Parse a KeyTransRecipientInfo (RFC 5652 s6.2.1)."""
    info.value(INTEGER)
    issuer = serial = key_id = None
    if info.next_is(CONTEXT_0):
        key_id = info.value(CONTEXT_0)
    else:
        sid = info.enter(SEQUENCE)
        issuer, serial = sid.element(SEQUENCE), sid.value(INTEGER)
    transport = read_key_transport(info)
    return Recipient(issuer, serial, key_id, transport, info.value(OCTET_STRING))


def check_recipient(
    recipient: Certificate | Password, sealing_size: int, how: KeyTransport
) -> None:
    """Raise `ScepError` (badAlg) if the recipient's key cannot encrypt `sealing_size` bytes."""
    if isinstance(recipient, Password):
        return
    octets = (rsa_public_key(recipient.spki).key_size + 7) // 8
    overhead = _PKCS1_OVERHEAD if how.scheme == "pkcs1v15" else 2 * how.digest.hash.digest_size + 2
    if octets - overhead < sealing_size:
        raise ScepError("key is too short to encrypt to", FailInfo.BAD_ALG)


def write_envelope(
    content: bytes, recipient: Certificate | Password, content_encryption: ContentEncryption
) -> bytes:
    """Encrypt `content` to one recipient, an RSA key or a password; return strict DER."""
    info = _write_recipient(recipient, content_encryption)
    cipher, encrypted, tag = content_encryption.cipher, b"", b""
    if isinstance(cipher, AuthenticatedCipher):
        encrypted, tag = cipher.encrypt(content_encryption.key, content_encryption.iv, content)
    else:
        encrypted = cipher.encrypt(content_encryption.key, content_encryption.iv, content)
    described = tlv(
        SEQUENCE, DATA, cipher.identifier(content_encryption.iv), tlv(CONTEXT_0, encrypted)
    )
    if tag:
        parts = (integer(0), tlv(SET, info), described, tlv(OCTET_STRING, tag))
        return write_content_info(AUTH_ENVELOPED_DATA, tlv(SEQUENCE, *parts))
    # RFC 5652 s6.1: version 3 if a password is among the recipients.
    version = integer(3 if isinstance(recipient, Password) else 0)
    return write_content_info(ENVELOPED_DATA, tlv(SEQUENCE, version, tlv(SET, info), described))


def _write_recipient(
    recipient: Certificate | Password, content_encryption: ContentEncryption
) -> bytes:
    if isinstance(recipient, Password):
        return write_password_recipient(
            content_encryption.key, recipient, wrapping_cipher(content_encryption.cipher)
        )
    check_recipient(recipient, len(content_encryption.key), content_encryption.transport)
    public_key = rsa_public_key(recipient.spki)
    try:
        encrypted_key = public_key.encrypt(
            content_encryption.key, content_encryption.transport.padding()
        )
    except ValueError:  # OpenSSL has its own limits on exponents and digests
        raise ScepError("key cannot be encrypted to", FailInfo.BAD_ALG) from None
    return tlv(
        SEQUENCE,
        integer(0),
        recipient.issuer_and_serial(),
        content_encryption.transport.identifier(),
        tlv(OCTET_STRING, encrypted_key),
    )


def wrapping_cipher(cipher: AnyCipher) -> ContentCipher:
    """Return the CBC cipher that wraps the content key under a password.

    It is the content's cipher or, for GCM, AES-CBC of at least the same key size.
    """
    if isinstance(cipher, ContentCipher):
        return cipher
    return AES128 if cipher.key_size == AES128.key_size else AES256
