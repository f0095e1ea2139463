"""Encodes the TBSCertificate of a template and derives its serial number. Pure (RFC 5280 s4.1)."""

import hmac
from dataclasses import dataclass
from typing import Final

from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.scep.asn1 import (
    BIT_STRING,
    CONSTRUCTED_0,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.times import write_time

_EXTENSIONS: Final = CONSTRUCTED_0 | 3
_TRUE: Final = b"\x01\x01\xff"
_VERSION_3: Final = tlv(CONSTRUCTED_0, integer(2))
SERIAL_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Draft:
    """A certificate before its signature: the serial number, and the TBSCertificate with it."""

    serial: bytes
    tbs: bytes


def draft(
    template: CertificateTemplate,
    issuer_name: bytes,
    algorithm: bytes,
    secret: bytes,
    enrollment: str,
) -> Draft:
    """Encode the TBSCertificate of a template; extensions are in the template's order.

    The serial number is 16 bytes, positive, and derived from the attempt (`enrollment`, its subject
    prefix) and the content. So every replica computes the same one for an attempt, and two attempts
    never share one even if their certificates are alike. It is an HMAC, so that nobody without the
    issuer's secret can predict one (RFC 5280 s4.1.2.2).
    """
    rest = (
        algorithm,
        issuer_name,
        tlv(SEQUENCE, write_time(template.not_before), write_time(template.not_after)),
        template.subject,
        template.spki,
        tlv(_EXTENSIONS, tlv(SEQUENCE, *map(_extension, template.extensions))),
    )
    content = enrollment.encode() + b"\0" + _tbs_certificate(b"", rest)
    digest = hmac.digest(secret, content, "sha256")[:SERIAL_BYTES]
    # Clear the top bit, so that it is positive, and set the next, so that it is never shorter.
    serial = bytes((digest[0] & 0x3F | 0x40,)) + digest[1:]
    return Draft(serial, _tbs_certificate(serial, rest))


def _tbs_certificate(serial: bytes, rest: tuple[bytes, ...]) -> bytes:
    return tlv(SEQUENCE, _VERSION_3, tlv(INTEGER, serial), *rest)


def certificate(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """Encode the Certificate around a signed TBSCertificate."""
    return tlv(SEQUENCE, tbs, algorithm, tlv(BIT_STRING, b"\0", signature))


def _extension(extension: TemplateExtension) -> bytes:
    return tlv(
        SEQUENCE,
        object_identifier(extension.oid),
        _TRUE if extension.critical else b"",
        tlv(OCTET_STRING, extension.value),
    )
