"""Names and subjectAltNames as text, tolerant of what devices send (RFC 5280)."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

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
from shared.scep.errors import FailInfo, ScepError
from shared.x509.dn import write_dn

SHORT_NAMES: Final = {
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
UPN: Final = bytes.fromhex("2b060104018237140203")  # 1.3.6.1.4.1.311.20.2.3
_KINDS: Final = {0x81: "rfc822", 0x82: "dns", 0x86: "uri"}
_IP: Final = 0x87


@dataclass(frozen=True, slots=True)
class GeneralName:
    """One subjectAltName entry: kind (dns, rfc822, uri, ip, upn, other) and its text."""

    kind: str
    value: str


def attribute_kind(oid: bytes) -> str:
    """Return the short name of an attribute type (an OID's contents), or its dotted form."""
    kind = dotted(oid)
    return SHORT_NAMES.get(kind, kind)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a Name.

    `der` is the whole AttributeTypeAndValue, `oid` the contents of its type, `tag` and `contents`
    its value.
    """

    der: bytes
    oid: bytes
    tag: int
    contents: bytes

    @property
    def kind(self) -> str:
        """The type's short name or dotted form."""
        return attribute_kind(self.oid)

    @property
    def text(self) -> str:
        """The value; undecodable bytes are replaced."""
        return text(self.tag, self.contents)


def read_rdn(rdn: Der) -> Iterator[Attribute]:
    """Yield the attributes of an RDN (the contents of its SET); `ScepError` if it is malformed."""
    while rdn.more():
        der = rdn.element(SEQUENCE)
        inner = Der(der).enter(SEQUENCE)
        attribute = Attribute(der, inner.value(OID), *inner.any())
        inner.finish()  # other software might read a second value that we ignore
        yield attribute


def read_attributes(der: bytes) -> Iterator[Attribute]:
    """Yield the attributes of a Name (DER) in encoding order; `ScepError` if it is malformed."""
    rdns = Der(der).enter(SEQUENCE)
    while rdns.more():
        yield from read_rdn(rdns.enter(SET))


def read_name(der: bytes) -> tuple[tuple[str, str], ...]:
    """Return (type, value) of each attribute of a Name (DER), in the order of the encoding."""
    return tuple((each.kind, each.text) for each in read_attributes(der))


def name_text(der: bytes) -> str:
    """Return a Name for display, such as "CN=device, O=Lab", in the order of the encoding.

    Values are escaped as in RFC 4514. Accepts any SEQUENCE: undecodable characters are replaced,
    and an unreadable RDN is shown as hex, such as "#3100".
    """
    rdns, shown = Der(der).enter(SEQUENCE), []
    while rdns.more():
        try:
            rdn = rdns.element()
        except ScepError:
            rdn = rdns.rest()
        try:
            attributes = [(each.kind, each.text) for each in read_rdn(Der(rdn).enter(SET))]
        except ScepError:
            attributes = []
        shown.append(write_dn(attributes) if attributes else f"#{rdn.hex()}")
    return ", ".join(shown)


def read_general_names(der: bytes) -> tuple[GeneralName, ...]:
    """Return the entries of a GeneralNames (RFC 5280 s4.2.1.6).

    An entry that is invalid for its kind gets the kind "other"; `name_rules` says what is wrong.
    Raises `ScepError` (badRequest) if the structure is malformed.
    """
    outer, found = Der(der), []
    try:
        names = outer.enter(SEQUENCE)
        outer.finish()
        while names.more():
            found.append(_general_name(*names.any()))
    except ScepError as error:
        detail = f"subjectAltName is not well-formed: {error.detail}"
        raise ScepError(detail, FailInfo.BAD_REQUEST) from None
    return tuple(found)


def _general_name(tag: int, contents: bytes) -> GeneralName:
    if tag in _KINDS and (readable := _text(contents)) is not None:
        return GeneralName(_KINDS[tag], readable)
    if tag == _IP and len(contents) in (4, 16):
        return GeneralName("ip", str(ipaddress.ip_address(contents)))
    if tag == CONSTRUCTED_0 and (principal := _principal(contents)) is not None:
        return GeneralName("upn", principal)
    return GeneralName("other", contents.hex())


def read_other_name(contents: bytes) -> tuple[bytes, bytes]:
    """Return an otherName's (type as OID contents, value as DER); `ScepError` if malformed."""
    other = Der(contents)
    oid, wrapped = other.value(OID), other.enter(CONSTRUCTED_0)
    other.finish()
    element = wrapped.element()
    wrapped.finish()
    return oid, element


def _principal(contents: bytes) -> str | None:
    """Return the user principal name in an otherName, or None."""
    try:
        oid, element = read_other_name(contents)
        tag, value = Der(element).any()
    except ScepError:
        return None
    return _text(value) if (oid, tag) == (UPN, UTF8_STRING) else None


def _text(contents: bytes) -> str | None:
    """Decode UTF-8; return None if it is invalid, since then the name is of another kind."""
    try:
        return contents.decode("utf-8")
    except UnicodeDecodeError:
        return None
