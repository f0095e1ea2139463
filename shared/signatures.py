"""Signatures on certificates and CSRs over the very bytes that were signed (RFC 5280 s4.1.1.2).

`cryptography` refuses to load certificates whose names hold what devices put there, so whether
one was issued by a CA is decided here on the raw TBSCertificate.
"""

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from shared.scep.algorithms import SHA1, SHA256, SHA384, SHA512, Digest
from shared.scep.asn1 import BIT_STRING, OID, SEQUENCE, Der, dotted
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

DIGESTS: Final[dict[str, Digest]] = {
    "1.2.840.113549.1.1.5": SHA1,
    "1.2.840.113549.1.1.11": SHA256,
    "1.2.840.113549.1.1.12": SHA384,
    "1.2.840.113549.1.1.13": SHA512,
    "1.2.840.10045.4.1": SHA1,
    "1.2.840.10045.4.3.2": SHA256,
    "1.2.840.10045.4.3.3": SHA384,
    "1.2.840.10045.4.3.4": SHA512,
}


def verifies(key: PublicKey, digest: Digest, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` is this key's: PKCS#1 v1.5 or ECDSA."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), digest.hash)
        else:
            key.verify(signature, data, ec.ECDSA(digest.hash))
    except (InvalidSignature, ValueError):
        return False
    return True


def is_issued_by(certificate: bytes, ca_subject: bytes, ca_key: PublicKey) -> bool:
    """Whether the CA of this name (DER) and key signed the certificate (DER)."""
    try:
        if read_certificate(certificate).issuer != ca_subject:
            return False
        outer = Der(certificate)
        whole = outer.enter(SEQUENCE)
        outer.finish()
        tbs = whole.element(SEQUENCE)
        digest = DIGESTS.get(dotted(whole.enter(SEQUENCE).value(OID)))
        signature = whole.value(BIT_STRING)
        whole.finish()
    except ScepError:
        return False
    return digest is not None and verifies(ca_key, digest, signature[1:], tbs)
