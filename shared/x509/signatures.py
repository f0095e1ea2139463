"""Signatures of certificates and CRLs, verified over the raw bytes (RFC 5280 s4.1.1.2).

`cryptography` refuses to load certificates with some names that devices use, so the issuer's
signature is verified here over the raw TBSCertificate.
"""

from shared.scep.algorithms import MD5
from shared.scep.asn1 import BIT_STRING, SEQUENCE, Der
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import PublicKey, read_signature_algorithm, verifies


def is_issued_by(certificate: bytes, ca_subject: bytes, ca_key: PublicKey) -> bool:
    """Return whether the CA with this name (DER) and key issued the certificate (DER)."""
    try:
        return read_certificate(certificate).issuer == ca_subject and is_signed_by(
            certificate, ca_key
        )
    except ScepError:
        return False


def is_signed_by(signed: bytes, key: PublicKey) -> bool:
    """Return whether the key signed this certificate or CRL (DER): both are SIGNED{} (X.509 s9.3).

    Raises `ScepError` for anything else.
    """
    outer = Der(signed)
    whole = outer.enter(SEQUENCE)
    outer.finish()
    to_be_signed, algorithm = whole.element(SEQUENCE), whole.element(SEQUENCE)
    signature = whole.value(BIT_STRING)
    whole.finish()
    if signature[:1] != b"\0":
        raise ScepError("signature is not whole octets")
    scheme, digest = read_signature_algorithm(algorithm)
    if digest is MD5:  # none of our CAs ever signed with MD5
        return False
    return verifies(key, scheme, digest, signature[1:], to_be_signed)
