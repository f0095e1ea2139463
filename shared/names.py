"""Names and subjectAltNames as text, tolerant of what devices put in them (RFC 5280)."""

import ipaddress
from dataclasses import dataclass
from typing import Final

from shared.dn import write_dn
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    OID,
    SEQUENCE,
    SET,
    UTF8_STRING,
    Der,
    dotted,
    text,
)

_SHORT_NAMES: Final = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
}
_UPN: Final = "1.3.6.1.4.1.311.20.2.3"
_KINDS: Final = {0x81: "rfc822", 0x82: "dns", 0x86: "uri"}
_IP: Final = 0x87


@dataclass(frozen=True, slots=True)
class GeneralName:
    """One subjectAltName entry: kind (dns, rfc822, uri, ip, upn, other) and its text."""

    kind: str
    value: str


def read_name(der: bytes) -> tuple[tuple[str, str], ...]:
    """(type, value) of each attribute of a Name, in the order of the encoding."""
    found = []
    rdns = Der(der).enter(SEQUENCE)
    while rdns.more():
        attributes = rdns.enter(SET)
        while attributes.more():
            attribute = attributes.enter(SEQUENCE)
            oid = dotted(attribute.value(OID))
            found.append((_SHORT_NAMES.get(oid, oid), text(*attribute.any())))
            attribute.finish()  # a second value would be read by others and not by us
    return tuple(found)


def name_text(der: bytes) -> str:
    """A Name for people: "CN=device, O=Lab", in the order of the encoding (RFC 4514 escapes)."""
    return write_dn(read_name(der))


def read_general_names(der: bytes) -> tuple[GeneralName, ...]:
    """The entries of a GeneralNames (RFC 5280 s4.2.1.6)."""
    outer, found = Der(der), []
    names = outer.enter(SEQUENCE)
    outer.finish()
    while names.more():
        found.append(_general_name(*names.any()))
    return tuple(found)


def _general_name(tag: int, contents: bytes) -> GeneralName:
    if tag in _KINDS and (readable := _text(contents)) is not None:
        return GeneralName(_KINDS[tag], readable)
    if tag == _IP and len(contents) in (4, 16):
        return GeneralName("ip", str(ipaddress.ip_address(contents)))
    if tag == CONSTRUCTED_0:
        other = Der(contents)
        kind, value = dotted(other.value(OID)), other.enter(CONSTRUCTED_0)
        tag, inner = value.any()
        value.finish()
        other.finish()
        if kind == _UPN and tag == UTF8_STRING and (readable := _text(inner)) is not None:
            return GeneralName("upn", readable)
    return GeneralName("other", contents.hex())


def _text(contents: bytes) -> str | None:
    """None for bytes that are no text: they are a name of another kind."""
    try:
        return contents.decode("utf-8")
    except UnicodeDecodeError:
        return None
