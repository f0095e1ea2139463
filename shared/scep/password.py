"""PasswordRecipientInfo: a content key encrypted under a password.

RFC 8894 s3.1 requires it for devices whose key cannot decrypt (EC): the password is the
challengePassword. The key-encryption key is derived by PBKDF2 (RFC 8018 s5.2) and wraps the content
key as in RFC 3211 s2.3.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from shared.scep.algorithms import ContentCipher, read_cipher
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    INTEGER,
    NULL,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Der,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.errors import FailInfo, ScepError

TAG: Final = CONSTRUCTED_0 | 3  # pwri of a RecipientInfo (RFC 5652 s6.2)
# The client chooses the iterations, and each password tried costs the server that much.
MAX_ITERATIONS: Final = 20_000
WRITTEN_ITERATIONS: Final = 10_000
SALT_SIZE: Final = 16
_MAX_SALT: Final = 128
_PBKDF2: Final = object_identifier("1.2.840.113549.1.5.12")
_PWRI_KEK: Final = object_identifier("1.2.840.113549.1.9.16.3.9")
_HMAC_SHA256: Final = object_identifier("1.2.840.113549.2.9")
_PRFS: Final[dict[bytes, hashes.HashAlgorithm]] = {
    object_identifier("1.2.840.113549.2.7"): hashes.SHA1(),  # noqa: S303 - PBKDF2's own default
    _HMAC_SHA256: hashes.SHA256(),
    object_identifier("1.2.840.113549.2.10"): hashes.SHA384(),
    object_identifier("1.2.840.113549.2.11"): hashes.SHA512(),
}
_CHECK: Final = 3
_HEAD: Final = 1 + _CHECK


@dataclass(frozen=True, slots=True)
class Derivation:
    """Parameters of PBKDF2, except for the key size, which the cipher determines."""

    salt: bytes
    iterations: int
    prf: hashes.HashAlgorithm

    def key(self, password: str, size: int) -> bytes:
        """Derive the key-encryption key of `size` bytes from a password."""
        kdf = PBKDF2HMAC(self.prf, size, self.salt, self.iterations)
        return kdf.derive(password.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class PasswordRecipient:
    """A PasswordRecipientInfo: key derivation, wrapping cipher and IV, and the wrapped key."""

    derivation: Derivation
    cipher: ContentCipher
    iv: bytes
    wrapped: bytes

    def unwrap(self, password: str) -> bytes | None:
        """Return the content key, or None if the password or the wrapped key is wrong."""
        block = self.cipher.block_size
        if len(self.wrapped) % block or len(self.wrapped) < 2 * block:
            return None
        kek = self.derivation.key(password, self.cipher.key_size)
        tail = _decrypt(self.cipher, kek, self.wrapped[-2 * block : -block], self.wrapped[-block:])
        once = _decrypt(self.cipher, kek, tail, self.wrapped)
        plain = _decrypt(self.cipher, kek, self.iv, once)
        key = plain[_HEAD : _HEAD + plain[0]]
        check = bytes(0xFF ^ octet for octet in key[:_CHECK])
        return key if len(key) == plain[0] and plain[1:_HEAD] == check else None


@dataclass(frozen=True, slots=True)
class Password:
    """A password to encrypt a reply to, and single-use randomness for it.

    `salt` is SALT_SIZE bytes, `iv` and `padding` a block of the cipher each.
    """

    password: str
    salt: bytes
    iv: bytes
    padding: bytes


def read_password_recipient(info: Der) -> PasswordRecipient:
    """Parse the contents of a PasswordRecipientInfo (RFC 5652 s6.2.4)."""
    info.value(INTEGER)
    if not info.next_is(CONSTRUCTED_0):
        raise ScepError("keyDerivationAlgorithm missing", FailInfo.BAD_ALG)
    derivation = _derivation(info.enter(CONSTRUCTED_0))
    wrapping = info.enter(SEQUENCE)
    if wrapping.element(OID) != _PWRI_KEK:
        raise ScepError("unsupported key wrapping", FailInfo.BAD_ALG)
    cipher, iv = read_cipher(wrapping)
    return PasswordRecipient(derivation, cipher, iv, info.value(OCTET_STRING))


def _derivation(algorithm: Der) -> Derivation:
    """Parse PBKDF2-params (RFC 8018 A.2); the [0] is IMPLICIT, so the OID comes first."""
    if algorithm.element(OID) != _PBKDF2:
        raise ScepError("unsupported key derivation", FailInfo.BAD_ALG)
    parameters = algorithm.enter(SEQUENCE)
    salt = parameters.value(OCTET_STRING)
    iterations = int.from_bytes(parameters.value(INTEGER)[:5], "big", signed=True)
    if parameters.next_is(INTEGER):
        parameters.value(INTEGER)  # keyLength: the cipher implies it
    prf: hashes.HashAlgorithm | None = hashes.SHA1()  # noqa: S303 - the DEFAULT
    if parameters.more():
        prf = _PRFS.get(parameters.enter(SEQUENCE).element(OID))
    if prf is None or not 0 < iterations <= MAX_ITERATIONS or len(salt) > _MAX_SALT:
        raise ScepError("key derivation out of bounds", FailInfo.BAD_ALG)
    return Derivation(salt, iterations, prf)


def write_password_recipient(content_key: bytes, to: Password, cipher: ContentCipher) -> bytes:
    """Encode a PasswordRecipientInfo that wraps a content key."""
    derivation = Derivation(to.salt, WRITTEN_ITERATIONS, _PRFS[_HMAC_SHA256])
    kek = derivation.key(to.password, cipher.key_size)
    check = bytes(0xFF ^ octet for octet in content_key[:_CHECK])
    plain = bytes((len(content_key),)) + check + content_key
    plain += to.padding[: -len(plain) % cipher.block_size]
    once = _encrypt(cipher, kek, to.iv, plain)
    wrapped = _encrypt(cipher, kek, once[-cipher.block_size :], once)
    parameters = tlv(
        SEQUENCE,
        tlv(OCTET_STRING, to.salt),
        integer(WRITTEN_ITERATIONS),
        tlv(SEQUENCE, _HMAC_SHA256, NULL),
    )
    return tlv(
        TAG,
        integer(0),
        tlv(CONSTRUCTED_0, _PBKDF2, parameters),
        tlv(SEQUENCE, _PWRI_KEK, cipher.identifier(to.iv)),
        tlv(OCTET_STRING, wrapped),
    )


def _encrypt(cipher: ContentCipher, key: bytes, iv: bytes, blocks: bytes) -> bytes:
    encryptor = Cipher(cipher.algorithm(key), modes.CBC(iv)).encryptor()
    return encryptor.update(blocks) + encryptor.finalize()


def _decrypt(cipher: ContentCipher, key: bytes, iv: bytes, blocks: bytes) -> bytes:
    decryptor = Cipher(cipher.algorithm(key), modes.CBC(iv)).decryptor()
    return decryptor.update(blocks) + decryptor.finalize()
