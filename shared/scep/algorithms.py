"""Algorithms in SCEP messages: digests, content ciphers, key transport (RFC 8894 s2.9)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

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


@dataclass(frozen=True, slots=True)
class Digest:
    """A message digest; a `legacy` one needs a legacy SCEP profile."""

    name: str
    oid: bytes
    hash: hashes.HashAlgorithm
    legacy: bool = False

    def identifier(self) -> bytes:
        """Encode the AlgorithmIdentifier with the NULL parameters that clients expect."""
        return tlv(SEQUENCE, self.oid, NULL)

    def of(self, data: bytes) -> bytes:
        """Return the digest of `data`."""
        state = hashes.Hash(self.hash)
        state.update(data)
        return state.finalize()


@dataclass(frozen=True, slots=True)
class ContentCipher:
    """A block cipher in CBC mode with PKCS#7 padding; sizes in bytes."""

    name: str
    oid: bytes
    key_size: int
    block_size: int
    algorithm: Callable[[bytes], BlockCipherAlgorithm]
    legacy: bool = False

    def identifier(self, iv: bytes) -> bytes:
        """Encode the AlgorithmIdentifier with the IV (RFC 3370 s5, RFC 3565 s2.3)."""
        return tlv(SEQUENCE, self.oid, tlv(OCTET_STRING, iv))

    def encrypt(self, key: bytes, iv: bytes, plaintext: bytes) -> bytes:
        """Pad and encrypt the plaintext."""
        padder = PKCS7(self.block_size * 8).padder()
        encryptor = Cipher(self.algorithm(key), modes.CBC(iv)).encryptor()
        padded = padder.update(plaintext) + padder.finalize()
        return encryptor.update(padded) + encryptor.finalize()

    @property
    def iv_size(self) -> int:
        """The size of the IV: one block."""
        return self.block_size

    def decrypt(self, key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
        """Decrypt and unpad; `ScepError` if the length or the padding is wrong."""
        decryptor = Cipher(self.algorithm(key), modes.CBC(iv)).decryptor()
        unpadder = PKCS7(self.block_size * 8).unpadder()
        try:
            padded = decryptor.update(ciphertext) + decryptor.finalize()
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise ScepError("content does not decrypt") from None


@dataclass(frozen=True, slots=True)
class AuthenticatedCipher:
    """AES in GCM mode, only for AuthEnvelopedData (RFC 5084); sizes in bytes."""

    name: str
    oid: bytes
    key_size: int
    iv_size: int = 12
    legacy: bool = False

    def identifier(self, nonce: bytes) -> bytes:
        """Encode the AlgorithmIdentifier with GCMParameters: nonce, tag length (RFC 5084 s3.2)."""
        parameters = tlv(SEQUENCE, tlv(OCTET_STRING, nonce), integer(_GCM_TAG))
        return tlv(SEQUENCE, self.oid, parameters)

    def encrypt(self, key: bytes, nonce: bytes, plaintext: bytes) -> tuple[bytes, bytes]:
        """Return (ciphertext, tag), without associated data."""
        encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
        return encryptor.update(plaintext) + encryptor.finalize(), encryptor.tag

    def decrypt(
        self, key: bytes, nonce: bytes, ciphertext: bytes, tag: bytes, associated: bytes
    ) -> bytes:
        """Decrypt; `ScepError` if the tag does not authenticate the content and `associated`."""
        mode = modes.GCM(nonce, tag, min_tag_length=_MIN_GCM_TAG)
        decryptor = Cipher(algorithms.AES(key), mode).decryptor()
        decryptor.authenticate_additional_data(associated)
        try:
            return decryptor.update(ciphertext) + decryptor.finalize()
        except InvalidTag:
            raise ScepError("content does not decrypt") from None


_GCM_TAG: Final = 16
_MIN_GCM_TAG: Final = 12


def _single_des(key: bytes) -> BlockCipherAlgorithm:
    """Return single DES as 3DES with the same key three times (FIPS 46-3)."""
    return TripleDES(key * 3)


MD5: Final = Digest("md5", object_identifier("1.2.840.113549.2.5"), hashes.MD5(), legacy=True)  # noqa: S303 - legacy profiles only
SHA1: Final = Digest("sha1", object_identifier("1.3.14.3.2.26"), hashes.SHA1(), legacy=True)  # noqa: S303 - legacy profiles only
SHA256: Final = Digest("sha256", object_identifier("2.16.840.1.101.3.4.2.1"), hashes.SHA256())
SHA384: Final = Digest("sha384", object_identifier("2.16.840.1.101.3.4.2.2"), hashes.SHA384())
SHA512: Final = Digest("sha512", object_identifier("2.16.840.1.101.3.4.2.3"), hashes.SHA512())
DIGESTS: Final = {d.oid: d for d in (MD5, SHA1, SHA256, SHA384, SHA512)}

AES128: Final = ContentCipher(
    "aes128", object_identifier("2.16.840.1.101.3.4.1.2"), 16, 16, algorithms.AES
)
AES192: Final = ContentCipher(
    "aes192", object_identifier("2.16.840.1.101.3.4.1.22"), 24, 16, algorithms.AES
)
AES256: Final = ContentCipher(
    "aes256", object_identifier("2.16.840.1.101.3.4.1.42"), 32, 16, algorithms.AES
)
DES3: Final = ContentCipher(
    "des3", object_identifier("1.2.840.113549.3.7"), 24, 8, TripleDES, legacy=True
)
DES: Final = ContentCipher("des", object_identifier("1.3.14.3.2.7"), 8, 8, _single_des, legacy=True)
CIPHERS: Final = {c.oid: c for c in (AES128, AES192, AES256, DES3, DES)}
AES128_GCM: Final = AuthenticatedCipher(
    "aes128-gcm", object_identifier("2.16.840.1.101.3.4.1.6"), 16
)
AES192_GCM: Final = AuthenticatedCipher(
    "aes192-gcm", object_identifier("2.16.840.1.101.3.4.1.26"), 24
)
AES256_GCM: Final = AuthenticatedCipher(
    "aes256-gcm", object_identifier("2.16.840.1.101.3.4.1.46"), 32
)
AUTHENTICATED_CIPHERS: Final = {c.oid: c for c in (AES128_GCM, AES192_GCM, AES256_GCM)}
AnyCipher = ContentCipher | AuthenticatedCipher

RSA_ENCRYPTION: Final = object_identifier("1.2.840.113549.1.1.1")
RSAES_OAEP: Final = object_identifier("1.2.840.113549.1.1.7")
_MGF1: Final = object_identifier("1.2.840.113549.1.1.8")
_P_SPECIFIED_EMPTY: Final = tlv(
    SEQUENCE, object_identifier("1.2.840.113549.1.1.9"), tlv(OCTET_STRING)
)


@dataclass(frozen=True, slots=True)
class KeyTransport:
    """Key transport: how a content key is encrypted to an RSA key, by PKCS#1 v1.5 or OAEP."""

    scheme: Literal["pkcs1v15", "oaep"]
    digest: Digest = SHA1
    mgf_digest: Digest = SHA1

    def padding(self) -> padding.AsymmetricPadding:
        """Return the padding for `cryptography`."""
        if self.scheme == "pkcs1v15":
            return padding.PKCS1v15()
        return padding.OAEP(padding.MGF1(self.mgf_digest.hash), self.digest.hash, None)

    def identifier(self) -> bytes:
        """Encode the AlgorithmIdentifier; SHA-1 is the DEFAULT and is omitted (RFC 4055 s4.1)."""
        if self.scheme == "pkcs1v15":
            return tlv(SEQUENCE, RSA_ENCRYPTION, NULL)
        parts = []
        if self.digest is not SHA1:
            parts.append(tlv(CONSTRUCTED_0, self.digest.identifier()))
        if self.mgf_digest is not SHA1:
            mgf = tlv(SEQUENCE, _MGF1, self.mgf_digest.identifier())
            parts.append(tlv(CONSTRUCTED_0 | 1, mgf))
        return tlv(SEQUENCE, RSAES_OAEP, tlv(SEQUENCE, *parts))


PKCS1V15: Final = KeyTransport("pkcs1v15")


@dataclass(frozen=True, slots=True)
class AlgorithmPolicy:
    """Algorithms that a SCEP profile accepts; `legacy` adds MD5, SHA-1, single DES and 3DES."""

    legacy: bool = False

    def check(self, algorithm: Digest | AnyCipher) -> None:
        """Raise `ScepError` (badAlg) for a legacy algorithm that the profile does not allow."""
        if algorithm.legacy and not self.legacy:
            raise ScepError(f"{algorithm.name} needs a legacy profile", FailInfo.BAD_ALG)


def read_digest(der: Der) -> Digest:
    """Parse the digest of a padding scheme; parameters are not checked (RFC 5754 s2)."""
    sequence = der.enter(SEQUENCE)
    digest = DIGESTS.get(sequence.element(OID))
    if digest is None or digest is MD5:  # MD5 is accepted only for old signatures
        raise ScepError("unsupported digest", FailInfo.BAD_ALG)
    return digest


def read_cipher(der: Der) -> tuple[ContentCipher, bytes]:
    """Parse a contentEncryptionAlgorithm and return (cipher, IV)."""
    sequence = der.enter(SEQUENCE)
    cipher = CIPHERS.get(sequence.element(OID))
    if cipher is None:
        raise ScepError("unsupported content cipher", FailInfo.BAD_ALG)
    iv = sequence.value(OCTET_STRING)
    if len(iv) != cipher.block_size:
        raise ScepError("IV of the wrong size")
    return cipher, iv


def read_authenticated_cipher(der: Der) -> tuple[AuthenticatedCipher, bytes, int]:
    """Return (cipher, nonce, tag length) of an AuthEnvelopedData's algorithm (RFC 5084 s3.2)."""
    sequence = der.enter(SEQUENCE)
    cipher = AUTHENTICATED_CIPHERS.get(sequence.element(OID))
    if cipher is None:
        raise ScepError("unsupported content cipher", FailInfo.BAD_ALG)
    parameters = sequence.enter(SEQUENCE)
    nonce = parameters.value(OCTET_STRING)
    size = int.from_bytes(parameters.value(INTEGER), "big") if parameters.more() else _MIN_GCM_TAG
    if len(nonce) != cipher.iv_size or not _MIN_GCM_TAG <= size <= _GCM_TAG:
        raise ScepError("nonce or tag of the wrong size")
    return cipher, nonce, size


def read_key_transport(der: Der) -> KeyTransport:
    """Parse a keyEncryptionAlgorithm: rsaEncryption, NULL or not, or OAEP (RFC 4055 s4.1)."""
    sequence = der.enter(SEQUENCE)
    oid = sequence.element(OID)
    if oid == RSA_ENCRYPTION:
        return PKCS1V15
    if oid != RSAES_OAEP:
        raise ScepError("unsupported key transport", FailInfo.BAD_ALG)
    return _oaep(sequence.enter(SEQUENCE)) if sequence.more() else KeyTransport("oaep")


def _oaep(parameters: Der) -> KeyTransport:
    """Parse RSAES-OAEP-params; a label (pSourceFunc) that is not empty is refused."""
    digest = mgf_digest = SHA1
    if parameters.next_is(CONSTRUCTED_0):
        digest = read_digest(parameters.enter(CONSTRUCTED_0))
    if parameters.next_is(CONSTRUCTED_0 | 1):
        mgf = parameters.enter(CONSTRUCTED_0 | 1).enter(SEQUENCE)
        if mgf.element(OID) != _MGF1:
            raise ScepError("unsupported mask generation", FailInfo.BAD_ALG)
        mgf_digest = read_digest(mgf)
    if parameters.next_is(CONSTRUCTED_0 | 2) and (
        parameters.enter(CONSTRUCTED_0 | 2).rest() != _P_SPECIFIED_EMPTY
    ):
        raise ScepError("unsupported OAEP label", FailInfo.BAD_ALG)
    parameters.finish()
    return KeyTransport("oaep", digest, mgf_digest)
