"""Key identifiers in certificates, CRLs, events and pins (RFC 5280 s4.2.1.1, s4.2.1.2). Pure."""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.scep.asn1 import BIT_STRING, SEQUENCE, Der


def public_key_id(spki: bytes) -> bytes:
    """Return the SHA-1 of a SubjectPublicKeyInfo's key bits (RFC 5280 s4.2.1.2, method 1)."""
    info = Der(spki).enter(SEQUENCE)
    info.element(SEQUENCE)
    return hashlib.sha1(info.value(BIT_STRING)[1:], usedforsecurity=False).digest()


def authority_key_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the AuthorityKeyIdentifier for what this CA signs: the CA's own key identifier.

    It is read from the CA certificate, since any method may have produced it, and computed only if
    the certificate has none.
    """
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        key = ca.public_key()
        own = public_key_id(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return x509.AuthorityKeyIdentifier(own, None, None)


def spki_sha256(spki: bytes) -> str:
    """Return a key's name in events and pins: SHA-256 of its SubjectPublicKeyInfo (DER), in hex."""
    return hashlib.sha256(spki).hexdigest()
