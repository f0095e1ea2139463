"""HPKE: gateways seal content keys to validators, and validators CSRs to issuers (RFC 9180)."""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealError(Exception):
    """Raised if sealed bytes do not open: wrong key, wrong subject or altered bytes."""


def sealing_key_id(public_key: X25519PublicKey) -> str:
    """Return the id by which an event names the key that something in it is sealed to."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]


def seal(secret: bytes, subject: str, public_key: X25519PublicKey) -> bytes:
    """Return the encapsulated key and ciphertext, bound to the subject of the event."""
    return _SUITE.encrypt(secret, public_key, subject.encode())


def unseal(sealed: bytes, subject: str, private_key: X25519PrivateKey) -> bytes:
    """Return what was sealed; raise `SealError` if it does not open."""
    try:
        return _SUITE.decrypt(sealed, private_key, subject.encode())
    except (InvalidTag, ValueError):
        raise SealError("the sealed bytes cannot be decrypted") from None
