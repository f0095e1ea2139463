"""Signature schemes of CMS signers: PKCS#1 v1.5, RSASSA-PSS, ECDSA (RFC 3370, 4056, 5753)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, Protocol, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from shared.scep.algorithms import (
    MD5,
    RSA_ENCRYPTION,
    SHA1,
    SHA256,
    SHA384,
    SHA512,
    Digest,
    read_digest,
)
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    INTEGER,
    NULL,
    OID,
    SEQUENCE,
    Der,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.errors import FailInfo, ScepError

_RSASSA_PSS: Final = object_identifier("1.2.840.113549.1.1.10")
_MGF1: Final = object_identifier("1.2.840.113549.1.1.8")
_EC_PUBLIC_KEY: Final = object_identifier("1.2.840.10045.2.1")
# signatureAlgorithm is rsaEncryption or names the digest too (RFC 3370 s3.2).
_PKCS1: Final[dict[bytes, Digest | None]] = {
    RSA_ENCRYPTION: None,
    object_identifier("1.2.840.113549.1.1.4"): MD5,
    object_identifier("1.2.840.113549.1.1.5"): SHA1,
    object_identifier("1.2.840.113549.1.1.11"): SHA256,
    object_identifier("1.2.840.113549.1.1.12"): SHA384,
    object_identifier("1.2.840.113549.1.1.13"): SHA512,
}
_ECDSA: Final[dict[bytes, Digest | None]] = {
    _EC_PUBLIC_KEY: None,
    object_identifier("1.2.840.10045.4.1"): SHA1,
    object_identifier("1.2.840.10045.4.3.2"): SHA256,
    object_identifier("1.2.840.10045.4.3.3"): SHA384,
    object_identifier("1.2.840.10045.4.3.4"): SHA512,
}
_DEFAULT_SALT: Final = 20
_MAX_SALT: Final = 512
_MIN_RSA_BITS: Final = 1024
_MAX_RSA_BITS: Final = 8192
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class RsaSigningKey(Protocol):
    """An RSA private key for signing, in memory or in a PKCS#11 token."""

    def sign(
        self, data: bytes, padding: padding.AsymmetricPadding, algorithm: hashes.HashAlgorithm
    ) -> bytes:
        """Return the signature over `data`."""


class EcSigningKey(Protocol):
    """An EC private key for signing, in memory or in a PKCS#11 token."""

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return the ECDSA signature (DER) over `data`."""


SigningKey = RsaSigningKey | EcSigningKey


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signature scheme; `mgf_digest` and `salt` (length in bytes) apply only to PSS."""

    kind: Literal["pkcs1v15", "pss", "ecdsa"]
    mgf_digest: Digest = SHA1
    salt: int = _DEFAULT_SALT

    def padding(self) -> padding.AsymmetricPadding:
        """Return the RSA padding for `cryptography`."""
        if self.kind == "pss":
            return padding.PSS(padding.MGF1(self.mgf_digest.hash), self.salt)
        return padding.PKCS1v15()

    def identifier(self, digest: Digest) -> bytes:
        """Encode the AlgorithmIdentifier for a CMS SignerInfo.

        PKCS#1 v1.5 is written as rsaEncryption: strongSwan refuses OIDs that name the digest too.
        """
        if self.kind == "pkcs1v15":
            return tlv(SEQUENCE, RSA_ENCRYPTION, NULL)
        if digest is MD5:
            raise ScepError("MD5 is supported only with PKCS#1 v1.5", FailInfo.BAD_ALG)
        if self.kind == "ecdsa":
            oid = next(oid for oid, named in _ECDSA.items() if named is digest)
            return tlv(SEQUENCE, oid)
        return tlv(SEQUENCE, _RSASSA_PSS, self._pss_parameters(digest))

    def _pss_parameters(self, digest: Digest) -> bytes:
        """Encode RSASSA-PSS-params; DEFAULT values are omitted (X.690 s11.5)."""
        parts = []
        if digest is not SHA1:
            parts.append(tlv(CONSTRUCTED_0, digest.identifier()))
        if self.mgf_digest is not SHA1:
            mgf = tlv(SEQUENCE, _MGF1, self.mgf_digest.identifier())
            parts.append(tlv(CONSTRUCTED_0 | 1, mgf))
        if self.salt != _DEFAULT_SALT:
            parts.append(tlv(CONSTRUCTED_0 | 2, integer(self.salt)))
        return tlv(SEQUENCE, *parts)


PKCS1V15_SIGNATURE: Final = Scheme("pkcs1v15")
ECDSA_SIGNATURE: Final = Scheme("ecdsa")


def pss(digest: Digest) -> Scheme:
    """Return RSASSA-PSS with one digest throughout and a salt of its size (RFC 4055 s3.1)."""
    return Scheme("pss", digest, digest.hash.digest_size)


def read_scheme(identifier: bytes, digest: Digest) -> Scheme:
    """Return the scheme of a SignerInfo's signatureAlgorithm (a whole AlgorithmIdentifier).

    If it names a digest, it must be `digest`, the SignerInfo's own (RFC 5754 s3, RFC 4056 s3).
    """
    sequence = Der(identifier).enter(SEQUENCE)
    oid = sequence.element(OID)
    if oid == _RSASSA_PSS:
        scheme, named_digest = _read_pss(sequence)
        if named_digest is not digest:
            raise ScepError("signature algorithm uses another digest")
        return scheme
    for named, scheme in ((_PKCS1, PKCS1V15_SIGNATURE), (_ECDSA, ECDSA_SIGNATURE)):
        if oid in named:
            if named[oid] not in (None, digest):
                raise ScepError("signature algorithm uses another digest")
            return scheme
    raise ScepError("unsupported signature algorithm", FailInfo.BAD_ALG)


def read_signature_algorithm(identifier: bytes) -> tuple[Scheme, Digest]:
    """Return (scheme, digest) of the AlgorithmIdentifier of a certificate, CRL or CSR."""
    sequence = Der(identifier).enter(SEQUENCE)
    oid = sequence.element(OID)
    if oid == _RSASSA_PSS:
        return _read_pss(sequence)
    for named, scheme in ((_PKCS1, PKCS1V15_SIGNATURE), (_ECDSA, ECDSA_SIGNATURE)):
        if (digest := named.get(oid)) is not None:
            return scheme, digest
    raise ScepError("unsupported signature algorithm", FailInfo.BAD_ALG)


def _read_pss(sequence: Der) -> tuple[Scheme, Digest]:
    """Parse RSASSA-PSS-params (RFC 4055 s3.1); the defaults are SHA-1 and a salt of 20 bytes."""
    parameters = sequence.enter(SEQUENCE)
    named = mgf_digest = SHA1
    salt = _DEFAULT_SALT
    if parameters.next_is(CONSTRUCTED_0):
        named = read_digest(parameters.enter(CONSTRUCTED_0))
    if parameters.next_is(CONSTRUCTED_0 | 1):
        mgf = parameters.enter(CONSTRUCTED_0 | 1).enter(SEQUENCE)
        if mgf.element(OID) != _MGF1:
            raise ScepError("unsupported mask generation", FailInfo.BAD_ALG)
        mgf_digest = read_digest(mgf)
    if parameters.next_is(CONSTRUCTED_0 | 2):
        contents = parameters.enter(CONSTRUCTED_0 | 2).value(INTEGER)
        salt = int.from_bytes(contents[:3], "big", signed=True)
    parameters.skip_if(CONSTRUCTED_0 | 3)  # trailerField: there is only one
    parameters.finish()
    if not 0 <= salt <= _MAX_SALT:
        raise ScepError("PSS salt of a wrong size", FailInfo.BAD_ALG)
    return Scheme("pss", mgf_digest, salt), named


@lru_cache(maxsize=64)
def public_key(spki: bytes) -> PublicKey:
    """Load the RSA or EC key of a SubjectPublicKeyInfo.

    Raises `ScepError` (badAlg) for other key types, curves and RSA key sizes out of bounds.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise ScepError("unreadable public key", FailInfo.BAD_ALG) from None
    if isinstance(key, rsa.RSAPublicKey):
        if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            raise ScepError("RSA key is too short or too long", FailInfo.BAD_ALG)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise ScepError("unsupported key type", FailInfo.BAD_ALG)


def rsa_public_key(spki: bytes) -> rsa.RSAPublicKey:
    """Load an RSA key, the only kind that can be encrypted to; `ScepError` (badAlg) for others."""
    key = public_key(spki)
    if not isinstance(key, rsa.RSAPublicKey):
        raise ScepError("key is not RSA", FailInfo.BAD_ALG)
    return key


def verifies(key: PublicKey, scheme: Scheme, digest: Digest, signature: bytes, data: bytes) -> bool:
    """Return whether the key's signature over `data` verifies.

    Raises `ScepError` (badAlg) if the scheme does not fit the key's type.
    """
    if (scheme.kind == "ecdsa") != isinstance(key, ec.EllipticCurvePublicKey):
        raise ScepError("signature algorithm does not match the key", FailInfo.BAD_ALG)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, scheme.padding(), digest.hash)
        else:
            key.verify(signature, data, ec.ECDSA(digest.hash))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def scheme_of(spki: bytes) -> Scheme:
    """Return the default signature scheme for the key of a SubjectPublicKeyInfo."""
    is_rsa = isinstance(public_key(spki), rsa.RSAPublicKey)
    return PKCS1V15_SIGNATURE if is_rsa else ECDSA_SIGNATURE


def sign(key: SigningKey, scheme: Scheme, digest: Digest, data: bytes) -> bytes:
    """Sign `data`; the scheme must fit the key's type."""
    if scheme.kind == "ecdsa":
        return cast(EcSigningKey, key).sign(data, ec.ECDSA(digest.hash))
    return cast(RsaSigningKey, key).sign(data, scheme.padding(), digest.hash)


def signature_identifier(scheme: Scheme, digest: Digest) -> bytes:
    """Encode a certificate's or CRL's AlgorithmIdentifier, with digest (RFC 5280 s4.1.1.2)."""
    if scheme.kind == "pkcs1v15":
        oid = next(oid for oid, named in _PKCS1.items() if named is digest)
        return tlv(SEQUENCE, oid, NULL)
    return scheme.identifier(digest)
