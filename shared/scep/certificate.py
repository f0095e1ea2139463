"""The certificate fields that SCEP needs, with their exact bytes (RFC 5280 s4.1)."""

from dataclasses import dataclass
from typing import Final

from shared.scep.asn1 import (
    CONSTRUCTED_0,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Der,
    object_identifier,
    tlv,
)

_EXTENSIONS: Final = CONSTRUCTED_0 | 3
_BOOLEAN: Final = 0x01
_SUBJECT_KEY_ID: Final = object_identifier("2.5.29.14")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate read by position and not validated, since devices make their own.

    `issuer`, `subject` and `spki` are whole DER elements; `serial` is an INTEGER's contents.
    """

    der: bytes
    issuer: bytes
    serial: bytes
    subject: bytes
    spki: bytes
    key_id: bytes | None

    def issuer_and_serial(self) -> bytes:
        """Encode an IssuerAndSerialNumber (RFC 5652 s10.2.4)."""
        return tlv(SEQUENCE, self.issuer, tlv(INTEGER, self.serial))


def read_certificate(der: bytes) -> Certificate:
    """Parse a certificate (DER); `ScepError` if it is malformed."""
    tbs = Der(der).enter(SEQUENCE).enter(SEQUENCE)
    tbs.skip_if(CONSTRUCTED_0)  # version
    serial = tbs.value(INTEGER)
    tbs.enter(SEQUENCE)  # signature
    issuer = tbs.element(SEQUENCE)
    tbs.enter(SEQUENCE)  # validity
    subject = tbs.element(SEQUENCE)
    spki = tbs.element(SEQUENCE)
    tbs.skip_if(0x81)  # issuerUniqueID
    tbs.skip_if(0x82)  # subjectUniqueID
    key_id = _key_id(tbs.enter(_EXTENSIONS)) if tbs.next_is(_EXTENSIONS) else None
    return Certificate(der, issuer, serial, subject, spki, key_id)


def read_extension(der: bytes, oid: bytes) -> bytes | None:
    """Return the value of a certificate's extension (`oid` as DER), None if it has none."""
    tbs = Der(der).enter(SEQUENCE).enter(SEQUENCE)
    while tbs.more() and not tbs.next_is(_EXTENSIONS):
        tbs.any()
    extensions = tbs.enter(_EXTENSIONS).enter(SEQUENCE) if tbs.more() else Der(b"")
    while extensions.more():
        extension = extensions.enter(SEQUENCE)
        if extension.element(OID) == oid:
            extension.skip_if(_BOOLEAN)
            return extension.value(OCTET_STRING)
    return None


def _key_id(der: Der) -> bytes | None:
    """Return the subjectKeyIdentifier of the extensions, or None (RFC 5280 s4.2.1.2)."""
    extensions = der.enter(SEQUENCE)
    while extensions.more():
        extension = extensions.enter(SEQUENCE)
        if extension.element(OID) != _SUBJECT_KEY_ID:
            continue
        extension.skip_if(_BOOLEAN)
        return Der(extension.value(OCTET_STRING)).value(OCTET_STRING)
    return None
