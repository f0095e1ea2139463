"""AuthEnvelopedData and PasswordRecipientInfo, encoded apart from the codec under test.

RFC 5083, RFC 5084, RFC 5652 s6.2.4, RFC 3211.
"""

import hashlib
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.messages import (
    CIPHERS,
    CONTENT_KEY,
    DATA,
    ENVELOPED,
    IV,
    NULL,
    SEQ,
    SET,
    encrypt,
    indefinite,
    integer,
    oid,
    segments,
    tlv,
)

AUTH_ENVELOPED: Final = oid("1.2.840.113549.1.9.16.1.23")
GCM: Final = {
    "aes128-gcm": ("2.16.840.1.101.3.4.1.6", 16),
    "aes192-gcm": ("2.16.840.1.101.3.4.1.26", 24),
    "aes256-gcm": ("2.16.840.1.101.3.4.1.46", 32),
}
GCM_NONCE: Final = IV[:12]
PBKDF2: Final = oid("1.2.840.113549.1.5.12")
PWRI_KEK: Final = oid("1.2.840.113549.1.9.16.3.9")
PRFS: Final = {
    "sha1": "1.2.840.113549.2.7",
    "sha256": "1.2.840.113549.2.9",
    "sha384": "1.2.840.113549.2.10",
    "sha512": "1.2.840.113549.2.11",
}
PASSWORD: Final = "s3cret"
SALT: Final = bytes(range(16))


def gcm_id(cipher: str, nonce: bytes = GCM_NONCE, size: int | None = 16) -> bytes:
    """AlgorithmIdentifier with GCMParameters; the tag's DEFAULT of 12 may be left out."""
    length = b"" if size is None else integer(size)
    return tlv(SEQ, oid(GCM[cipher][0]), tlv(SEQ, tlv(4, nonce), length))


def gcm_key(cipher: str) -> bytes:
    return CONTENT_KEY[: GCM[cipher][1]]


def authenticated(
    plaintext: bytes,
    *recipients: bytes,
    cipher: str = "aes256-gcm",
    form: str = "primitive",
    attributes: bytes = b"",
    tag_size: int = 16,
    algorithm: bytes = b"",
    tag: bytes | None = None,
) -> bytes:
    """An AuthEnvelopedData; `attributes` are the contents of the SET OF that is authenticated."""
    associated = tlv(SET, attributes) if attributes else None
    sealed = AESGCM(gcm_key(cipher)).encrypt(GCM_NONCE, plaintext, associated)
    ciphertext, tag = sealed[:-16], sealed[-16:][:tag_size] if tag is None else tag
    algorithm = algorithm or gcm_id(cipher, size=tag_size)
    after = (tlv(0xA1, attributes) if attributes else b"", tlv(4, tag))
    head = (integer(0), tlv(SET, *recipients))
    if form == "ber":
        content = indefinite(SEQ, DATA, algorithm, segments(0xA0, ciphertext))
        return indefinite(
            SEQ, AUTH_ENVELOPED, indefinite(0xA0, indefinite(SEQ, *head, content, *after))
        )
    inner = tlv(0x80, ciphertext) if form == "primitive" else tlv(0xA0, tlv(4, ciphertext))
    content = tlv(SEQ, DATA, algorithm, inner)
    return tlv(SEQ, AUTH_ENVELOPED, tlv(0xA0, tlv(SEQ, *head, content, *after)))


def pbkdf2_id(
    prf: str = "sha256",
    iterations: int = 1000,
    *,
    salt: bytes = SALT,
    key_length: bytes = b"",
    parameters: bytes = NULL,
) -> bytes:
    """The [0] keyDerivationAlgorithm; HMAC-SHA-1 is the DEFAULT and left out, as DER wants."""
    named = b"" if prf == "sha1" else tlv(SEQ, oid(PRFS[prf]), parameters)
    body = tlv(SEQ, tlv(4, salt), integer(iterations), key_length, named)
    return tlv(0xA0, PBKDF2, body)


def wrap(
    key: bytes,
    kek: bytes,
    *,
    cipher: str = "aes256",
    iv: bytes = IV,
    fill: bytes = bytes(range(1, 16)),
    head: bytes | None = None,
) -> bytes:
    """RFC 3211 s2.3.1: length, check value, key and fill, through one CBC stream twice."""
    _, _, block, algorithm = CIPHERS[cipher]
    if head is None:
        head = bytes((len(key),)) + bytes(octet ^ 0xFF for octet in key[:3])
    plain = head + key
    short = -len(plain) % block
    plain += fill[:short]
    if len(plain) < 2 * block:
        plain += (fill * 2)[short : short + block]
    encryptor = Cipher(algorithm(kek), modes.CBC(iv[:block])).encryptor()
    return encryptor.update(encryptor.update(plain))


def derived(
    password: str, prf: str, size: int, iterations: int = 1000, salt: bytes = SALT
) -> bytes:
    return hashlib.pbkdf2_hmac(prf, password.encode(), salt, iterations, size)


def password_recipient(
    key: bytes,
    password: str = PASSWORD,
    *,
    cipher: str = "aes256",
    prf: str = "sha256",
    iterations: int = 1000,
    salt: bytes = SALT,
    derivation: bytes | None = None,
    wrapping: bytes | None = None,
    wrapped: bytes | None = None,
) -> bytes:
    """A PasswordRecipientInfo; `derivation`, `wrapping` and `wrapped` stand in for what is made."""
    dotted, size, block, _ = CIPHERS[cipher]
    if derivation is None:
        derivation = pbkdf2_id(prf, iterations, salt=salt)
    if wrapping is None:
        wrapping = tlv(SEQ, PWRI_KEK, tlv(SEQ, oid(dotted), tlv(4, IV[:block])))
    if wrapped is None:
        wrapped = wrap(key, derived(password, prf, size, iterations, salt), cipher=cipher)
    return tlv(0xA3, integer(0), derivation, wrapping, tlv(4, wrapped))


def swapped(kind: bytes, algorithm: bytes, *recipients: bytes, tag: bytes = b"") -> bytes:
    """An envelope whose content type and cipher need not be a pair."""
    content = tlv(SEQ, DATA, algorithm, tlv(0x80, encrypt("aes256", b"content")))
    body = tlv(SEQ, integer(0), tlv(SET, *recipients), content, tag)
    return tlv(SEQ, kind, tlv(0xA0, body))


ENVELOPES: Final = (ENVELOPED, AUTH_ENVELOPED)
