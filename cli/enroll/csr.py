"""PKCS#10 requests, encoded as different families of devices encode them (RFC 2986)."""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.scep.algorithms import SHA256
from shared.scep.asn1 import (
    BIT_STRING,
    BMP_STRING,
    CONSTRUCTED_0,
    OCTET_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    UTF8_STRING,
    integer,
    is_printable,
    object_identifier,
    tlv,
)
from shared.scep.schemes import ECDSA_SIGNATURE, PKCS1V15_SIGNATURE, sign, signature_identifier
from shared.scep.signed_data import attribute

_CHALLENGE_PASSWORD: Final = object_identifier("1.2.840.113549.1.9.7")
_EXTENSION_REQUEST: Final = object_identifier("1.2.840.113549.1.9.14")
_TRUE: Final = bytes((0x01, 0x01, 0xFF))

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class CsrForm:
    """How a CSR is encoded, and what it holds apart from subject, SAN and challenge.

    `attributes` and `extensions` are DER elements. `password` is the challenge's string type, and
    UTF8String is used for what that type cannot hold. `key_id` adds a subjectKeyIdentifier.
    """

    version: int = 0
    sorted: bool = True
    password: int = UTF8_STRING
    attributes: tuple[bytes, ...] = ()
    extensions: tuple[bytes, ...] = ()
    key_id: bool = False


def extension(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    """Encode an X.509 extension (RFC 5280 s4.1)."""
    oid = object_identifier(value.oid.dotted_string)
    contents = tlv(OCTET_STRING, value.public_bytes())
    return tlv(SEQUENCE, oid, _TRUE if critical else b"", contents)


def write_csr(
    key: Key,
    subject: bytes,
    challenge: str | None,
    names: x509.SubjectAlternativeName | None,
    form: CsrForm,
) -> bytes:
    """Return a PKCS#10 request (DER) for `key` and `subject` (DER), signed with SHA-256.

    Attributes are in DER order or, if the form is not sorted, in the reverse of it.
    """
    attributes = [*form.attributes]
    if extensions := _extensions(key, names, form):
        attributes.append(attribute(_EXTENSION_REQUEST, tlv(SEQUENCE, *extensions)))
    if challenge:
        attributes.append(attribute(_CHALLENGE_PASSWORD, string(form.password, challenge)))
    public_key = key.public_key()
    info = tlv(
        SEQUENCE,
        integer(form.version),
        subject,
        public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        tlv(CONSTRUCTED_0, *sorted(attributes, reverse=not form.sorted)),
    )
    scheme = PKCS1V15_SIGNATURE if isinstance(key, rsa.RSAPrivateKey) else ECDSA_SIGNATURE
    signature = tlv(BIT_STRING, b"\0", sign(key, scheme, SHA256, info))
    return tlv(SEQUENCE, info, signature_identifier(scheme, SHA256), signature)


def _extensions(
    key: Key, names: x509.SubjectAlternativeName | None, form: CsrForm
) -> tuple[bytes, ...]:
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        *form.extensions,
        *([extension(names)] if names is not None else []),
        *([extension(key_id)] if form.key_id else []),
    )


def string(tag: int, text: str) -> bytes:
    """Encode a character string of this type, or a UTF8String if the type cannot hold the text."""
    if tag == BMP_STRING and max(text, default="") <= "\uffff":
        return tlv(tag, text.encode("utf-16-be"))
    if tag == PRINTABLE_STRING and is_printable(text.encode()):
        return tlv(tag, text.encode())
    return tlv(UTF8_STRING, text.encode())


def name_value_pair(name: str, value: str) -> bytes:
    """Encode Microsoft's attribute with a pair of name and value ([MS-WCCE] 2.2.2.7.10)."""
    oid = object_identifier("1.3.6.1.4.1.311.13.2.1")
    pair = tlv(SEQUENCE, string(BMP_STRING, name), string(BMP_STRING, value))
    return tlv(SEQUENCE, oid, tlv(SET, pair))
