"""How keys are named in certificates and CRLs. Pure (RFC 5280 s4.2.1.2)."""

import hashlib

from shared.scep.asn1 import BIT_STRING, SEQUENCE, Der


def public_key_id(spki: bytes) -> bytes:
    """SHA-1 of the subjectPublicKey bits of a SubjectPublicKeyInfo: method 1."""
    info = Der(spki).enter(SEQUENCE)
    info.element(SEQUENCE)
    return hashlib.sha1(info.value(BIT_STRING)[1:], usedforsecurity=False).digest()
