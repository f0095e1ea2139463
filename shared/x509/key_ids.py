"""How keys are named in certificates, CRLs, events and pins. Pure (RFC 5280 s4.2.1.1, s4.2.1.2)."""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.scep.asn1 import BIT_STRING, SEQUENCE, Der


def public_key_id(spki: bytes) -> bytes:
    """SHA-1 of the subjectPublicKey bits of a SubjectPublicKeyInfo: method 1."""
    info = Der(spki).enter(SEQUENCE)
    info.element(SEQUENCE)
    return hashlib.sha1(info.value(BIT_STRING)[1:], usedforsecurity=False).digest()


def authority_key_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the AuthorityKeyIdentifier of what this CA signs: the CA's own key identifier.

    It is read, for a CA may have used any method; computed only where the CA carries none.
    """
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        key = ca.public_key()
        own = public_key_id(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return x509.AuthorityKeyIdentifier(own, None, None)


def spki_sha256(spki: bytes) -> str:
    """Return how events and pins name a key: SHA-256 of its SubjectPublicKeyInfo in DER, in hex."""
    return hashlib.sha256(spki).hexdigest()
