"""Signatures of every scheme, encoded apart from the codec under test (RFC 4055, 4056, 5753)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tests.support.messages import (
    HASHES,
    NULL,
    RSA,
    SEQ,
    EcIdentity,
    Identity,
    ec_identity,
    integer,
    oid,
    rsa_sign,
    signed,
    tlv,
)

RSASSA_PSS: Final = oid("1.2.840.113549.1.1.10")
MGF1: Final = oid("1.2.840.113549.1.1.8")
PKCS1_OIDS: Final = {
    "md5": "1.2.840.113549.1.1.4",
    "sha1": "1.2.840.113549.1.1.5",
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
}
ECDSA_OIDS: Final = {
    "sha1": "1.2.840.10045.4.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}
EC_PUBLIC_KEY: Final = tlv(SEQ, oid("1.2.840.10045.2.1"))
CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Way:
    """One way to sign: whose key, which digest, the AlgorithmIdentifier, the signature."""

    by: Identity | EcIdentity
    digest: str
    algorithm: bytes
    sign: Sign


def digest_id(digest: str, parameters: bytes = NULL) -> bytes:
    return tlv(SEQ, oid(HASHES[digest][0]), parameters)


def pss_id(digest: str, mgf: str = "", salt: int | None = None, *, plain: bool = False) -> bytes:
    """RSASSA-PSS with its parameters; `plain` leaves out what is a DEFAULT, as DER wants."""
    salt = HASHES[digest][1].digest_size if salt is None else salt
    parts = [
        tlv(0xA0, digest_id(digest)),
        tlv(0xA1, tlv(SEQ, MGF1, digest_id(mgf or digest))),
        tlv(0xA2, integer(salt)),
    ]
    if plain:
        defaults = (digest == "sha1", (mgf or digest) == "sha1", salt == 20)
        parts = [part for part, default in zip(parts, defaults, strict=True) if not default]
    return tlv(SEQ, RSASSA_PSS, tlv(SEQ, *parts))


def pss_sign(key: rsa.RSAPrivateKey, digest: str, mgf: str = "", salt: int | None = None) -> Sign:
    salt = HASHES[digest][1].digest_size if salt is None else salt
    pad = padding.PSS(padding.MGF1(HASHES[mgf or digest][1]), salt)
    return lambda data: key.sign(data, pad, HASHES[digest][1])


def ecdsa_sign(key: ec.EllipticCurvePrivateKey, digest: str) -> Sign:
    """Deterministic (RFC 6979), so that what fails can be read again."""
    algorithm = ec.ECDSA(HASHES[digest][1], deterministic_signing=True)
    return lambda data: key.sign(data, algorithm)


def pss(by: Identity, digest: str, mgf: str = "", salt: int | None = None) -> Way:
    return Way(by, digest, pss_id(digest, mgf, salt), pss_sign(by.key, digest, mgf, salt))


def pkcs1(by: Identity, digest: str, algorithm: bytes = RSA) -> Way:
    return Way(by, digest, algorithm, rsa_sign(by.key, digest))


def ecdsa(by: EcIdentity, digest: str, algorithm: bytes = b"") -> Way:
    algorithm = algorithm or tlv(SEQ, oid(ECDSA_OIDS[digest]))
    return Way(by, digest, algorithm, ecdsa_sign(by.key, digest))


@cache
def ec_device(curve: str = "P-256") -> EcIdentity:
    """A client with an EC key, the same key in every run."""
    return ec_identity("EC device", 0x7100, ec.derive_private_key(0xC0FFEE, CURVES[curve]()))


def every_way(device: Identity) -> dict[str, Way]:
    """Each scheme with each digest that it knows, its algorithm in each of its forms."""
    ways = {}
    for digest, dotted in PKCS1_OIDS.items():
        ways[f"PKCS#1 {digest}"] = pkcs1(device, digest)
        ways[f"PKCS#1 {digest}, named"] = pkcs1(device, digest, tlv(SEQ, oid(dotted), NULL))
    for digest in ECDSA_OIDS:
        ways[f"PSS {digest}"] = pss(device, digest)
        ways[f"PSS {digest}, MGF1 sha1, salt 20"] = pss(device, digest, "sha1", 20)
        for curve in CURVES:
            by = ec_device(curve)
            ways[f"{curve} {digest}"] = ecdsa(by, digest, EC_PUBLIC_KEY)
            ways[f"{curve} {digest}, named"] = ecdsa(by, digest)
    return ways


def signed_so(content: bytes, way: Way, *, ber: bool = False) -> bytes:
    """A SCEP request signed in this way."""
    return signed(
        content,
        way.by,
        digest=way.digest,
        signature_algorithm=way.algorithm,
        sign=way.sign,
        ber=ber,
    )
