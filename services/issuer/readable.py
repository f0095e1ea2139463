"""Checks that a certificate would load: strict parsers reject what lenient ones accept. Pure.

It runs on a draft, before the serial number is recorded and before the CA's key signs.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from cryptography import x509

from shared.log.events.enrollment import CertificateTemplate
from shared.scep.asn1 import (
    OID,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    T61_STRING,
    UTF8_STRING,
    Der,
    set_of,
    tlv,
)
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.x509.loading import loading
from shared.x509.sid import SID, read_sid

_LOOSE: Final = (PRINTABLE_STRING, T61_STRING)


def unreadable(
    template: CertificateTemplate, der: bytes, draft: Callable[[CertificateTemplate], bytes]
) -> str:
    """Return why the certificate (DER) of a template does not load, "" if it does.

    Characters that old clients put into PrintableString and TeletexString, outside their alphabets,
    are tolerated: if nothing else is wrong, the same name in UTF8Strings loads. `draft` makes the
    certificate (DER) of another template.
    """
    problem = _problem(der, template)
    if not problem:
        return ""
    try:
        plain = msgspec.structs.replace(template, subject=in_utf8(template.subject))
    except ScepError:
        return problem
    return _problem(draft(plain), plain) if plain != template else problem


def _problem(der: bytes, template: CertificateTemplate) -> str:
    try:
        with loading():
            loaded = x509.load_der_x509_certificate(der)
            _look_at(loaded)
        parsed = read_certificate(der)
    except (ValueError, ScepError) as error:
        return f"the certificate would not load: {str(error)[:200]}"
    times = loaded.not_valid_before_utc.timestamp(), loaded.not_valid_after_utc.timestamp()
    if times != (template.not_before, template.not_after):
        return "the certificate would load with a different validity"
    if (parsed.subject, parsed.spki) != (template.subject, template.spki):
        return "the certificate would load with a different subject or key"
    return ""


def _look_at(certificate: x509.Certificate) -> None:
    """Parse what `cryptography` parses only on access; reject bad serials and extensions."""
    certificate.subject  # noqa: B018 - parsed when it is read
    certificate.public_key()
    if certificate.serial_number <= 0:
        raise ValueError("the serial number is not positive")
    for extension in certificate.extensions:
        is_sid = extension.oid.dotted_string == SID and read_sid(extension.value.public_bytes())
        if isinstance(extension.value, x509.UnrecognizedExtension) and not is_sid:
            raise TypeError("unknown extension")


def in_utf8(name: bytes) -> bytes:
    """Return a Name with each loose string as a UTF8String; raises `ScepError` if it is no Name."""
    outer, written = Der(name), []
    rdns = outer.enter(SEQUENCE)
    outer.finish()
    while rdns.more():
        attributes, rdn = rdns.enter(SET), []
        while attributes.more():
            attribute = attributes.enter(SEQUENCE)
            oid = attribute.element(OID)
            tag, contents = attribute.any()
            if tag in _LOOSE:
                tag, contents = UTF8_STRING, contents.decode("latin-1").encode()
            rdn.append(tlv(SEQUENCE, oid, tlv(tag, contents)))
        written.append(set_of(*rdn))
    return tlv(SEQUENCE, *written)
