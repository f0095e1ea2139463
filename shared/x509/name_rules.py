"""Rules for the subject and subjectAltName of a certificate, type by type (RFC 5280). Pure.

Each check returns a sentence that names the entry and the rule, or "" if the value is valid. Two
faults of real clients are tolerated in a subject: characters outside PrintableString's alphabet,
and Latin-1 in a TeletexString.
"""

import contextlib
import re
from typing import Final

from shared.scep.asn1 import (
    BIT_STRING,
    BMP_STRING,
    IA5_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    T61_STRING,
    UNIVERSAL_STRING,
    UTF8_STRING,
    Der,
    is_printable,
    tlv,
)
from shared.scep.errors import ScepError
from shared.text.printable import HIDDEN
from shared.x509.names import UPN, read_other_name, read_rdn

_NAME_RULE: Final = "(RFC 5280 4.1.2.4)"
_SAN_RULE: Final = "(RFC 5280 4.2.1.6)"
_UNIQUE_IDENTIFIER: Final = "2.5.4.45"
_MAX_OID: Final = 63  # bytes; `cryptography`, and so many tools, cannot read a longer one
_MAX_HOST: Final = 253
_MAX_LABEL: Final = 63
_MAX_LOCAL: Final = 64
_MAX_SHOWN: Final = 64
_MAX_DEPTH: Final = 16
_CONSTRUCTED: Final = 0x20
_IP_SIZES: Final = (4, 16)
_CODECS: Final = {
    UTF8_STRING: ("UTF8String", "utf-8"),
    PRINTABLE_STRING: ("PrintableString", "latin-1"),
    T61_STRING: ("TeletexString", "latin-1"),
    IA5_STRING: ("IA5String", "ascii"),
    UNIVERSAL_STRING: ("UniversalString", "utf-32-be"),
    BMP_STRING: ("BMPString", "utf-16-be"),
}
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LOCAL: Final = re.compile(rf'{_ATOM}(\.{_ATOM})*|"([^"\\]|\\.)+"')
_LITERAL: Final = re.compile(r"\[[A-Za-z0-9:.-]+\]")
_URI: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:"
    r"((?!//)|//([^/?#@\[\]]*@)?([^/?#@:\[\]]*|\[[0-9A-Za-z:.]+\])(:[0-9]*)?(?=[/?#]|$))"
    r"[^\[\]#]*(#[^\[\]#]*)?"
)
_URI_CHARACTERS: Final = re.compile(r"([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
# Microsoft's device id URIs may write the GUID in braces.
_BRACED_GUID: Final = re.compile(r"IntuneDeviceId://\{[0-9A-Fa-f-]{36}\}")


def bad_name(der: bytes, *, strict: bool = False) -> str:
    """Return what is wrong with a Name (DER), or ""; `strict` tolerates no faults."""
    try:
        outer = Der(der)
        rdns = outer.enter(SEQUENCE)
        outer.finish()
        number = 0
        while rdns.more():
            number += 1
            if problem := _bad_rdn(rdns.enter(SET), strict=strict):
                return f"RDN {number} of the name, {problem} {_NAME_RULE}"
    except ScepError as error:
        return f"the name is not well-formed: {error.detail} {_NAME_RULE}"
    return ""


def _bad_rdn(rdn: Der, *, strict: bool) -> str:
    """Check an RDN: one or more attributes of different types (X.501 9.3), in DER order."""
    before, kinds = b"", set()
    if not rdn.more():
        return "which is empty: each must have an attribute"
    for attribute in read_rdn(rdn):
        if problem := bad_oid(attribute.oid):
            return f"an attribute's type: {problem}"
        kind = attribute.kind
        if problem := _bad_value(kind, attribute.tag, attribute.contents, strict=strict):
            return f"{kind}: {problem}"
        if kind in kinds:
            return f"{kind}: duplicate attribute type in one RDN"
        if attribute.der < before:
            return f"{kind}: the attributes are not in DER order"
        before = attribute.der
        kinds.add(kind)
    return ""


def _bad_value(kind: str, tag: int, contents: bytes, *, strict: bool) -> str:
    if tag == BIT_STRING and kind == _UNIQUE_IDENTIFIER:
        return "" if contents[:1] == b"\0" else "the value is not whole octets"
    if tag not in _CODECS:
        return "the value is not a character string"
    if not contents:
        return "the value is empty"
    problem = _bad_text(tag, contents, strict=strict)
    if strict and not problem and tag in (PRINTABLE_STRING, T61_STRING):
        alphabet = is_printable(contents) if tag == PRINTABLE_STRING else contents.isascii()
        return "" if alphabet else f"the {_CODECS[tag][0]} contains characters outside its alphabet"
    return problem


def _bad_text(tag: int, contents: bytes, *, strict: bool = True) -> str:
    """Check a string's bytes against its type, and for NUL and hidden characters.

    Much software ends a name at NUL, and hidden characters let one name pass for another. Unless
    `strict`, UTF-8 bytes that were taken for Latin-1 are decoded as UTF-8: `openssl req` writes
    Straße and Ärzte that way, which as Latin-1 would hold C1 controls.
    """
    name, codec = _CODECS[tag]
    try:
        decoded = contents.decode(codec)
    except UnicodeDecodeError:
        return f"the {name} does not decode"
    if "\0" in decoded:
        return "the value contains a NUL character"
    if tag == PRINTABLE_STRING or not strict:  # old clients write UTF-8 there
        with contextlib.suppress(UnicodeError):
            decoded = decoded.encode("latin-1").decode("utf-8")
    if HIDDEN.search(decoded):
        return "the value contains a hidden character"
    if tag == BMP_STRING and not decoded.isascii() and max(decoded) > "\uffff":
        return "the BMPString contains surrogates"
    return ""


def bad_oid(contents: bytes) -> str:
    """Return what is wrong with an OBJECT IDENTIFIER's contents, or "" (X.690 8.19)."""
    if not contents or contents[-1] & 0x80:
        return "the object identifier is cut short"
    if len(contents) > _MAX_OID:
        return f"the object identifier has more than {_MAX_OID} bytes"
    starts = (0, *(i + 1 for i, octet in enumerate(contents[:-1]) if not octet & 0x80))
    if any(contents[start] == 0x80 for start in starts):  # noqa: PLR2004 - a leading zero septet
        return "the object identifier is not minimal"
    return ""


def bad_general_names(der: bytes) -> str:
    """Return what is wrong with a GeneralNames (DER), or ""; an empty one is accepted as absent."""
    try:
        outer = Der(der)
        names = outer.enter(SEQUENCE)
        outer.finish()
        number = 0
        while names.more():
            number += 1
            tag, contents = names.any()
            if problem := _bad_general_name(tag, contents):
                return f"subjectAltName entry {number}, {problem} {_SAN_RULE}"
    except ScepError as error:
        return f"subjectAltName is not well-formed: {error.detail} {_SAN_RULE}"
    return ""


def _bad_general_name(tag: int, contents: bytes) -> str:
    named = _GENERAL_NAMES.get(tag)
    if named is None:
        return f"which has the tag 0x{tag:02x}: names of this kind are not supported"
    name, check = named
    try:
        problem = check(contents) if contents else "it is empty"
    except ScepError as error:
        problem = f"it is not well-formed: {error.detail}"
    return f'{name} "{_shown(contents)}": {problem}' if problem else ""


def _shown(contents: bytes) -> str:
    """Return the bytes for display, shortened; all but visible ASCII is escaped."""
    shown = "".join(chr(c) if 0x20 <= c < 0x7F else f"\\x{c:02x}" for c in contents)  # noqa: PLR2004 - ASCII
    return shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."


def _bad_ia5(contents: bytes) -> str:
    """Check for characters that no name in an IA5String may contain."""
    if not contents.isascii():
        return "characters outside ASCII are not allowed: write internationalized names in ASCII"
    if b"\0" in contents:
        return "a NUL character is not allowed"
    if b" " in contents:
        return "a space is not allowed"
    return "" if contents.decode("ascii").isprintable() else "control characters are not allowed"


def _bad_dns(contents: bytes) -> str:
    problem = _bad_ia5(contents)
    return problem or _bad_host(contents.decode("ascii"), wildcard=True)


def _bad_host(host: str, *, wildcard: bool = False) -> str:
    """Check a host name. Underscores are allowed: Windows host names contain them."""
    if len(host) > _MAX_HOST:
        return f"a host name must not exceed {_MAX_HOST} characters"
    labels = host.split(".")
    if wildcard and labels[0] == "*" and len(labels) > 1:
        del labels[0]
    for label in labels:
        if not label:
            return "a label is empty: a dot must separate two labels"
        if len(label) > _MAX_LABEL:
            return f"a label has more than {_MAX_LABEL} characters"
        if "*" in label:
            return "a wildcard must be the whole first label"
        if not _LABEL.fullmatch(label):
            return "a label has letters, digits and inner hyphens only"
    return ""


def _bad_mail(contents: bytes) -> str:
    if problem := _bad_ia5(contents):
        return problem
    local, at, domain = contents.decode("ascii").rpartition("@")
    if not at or not local or not domain:
        return "a mail address must be local-part@domain"
    if len(local) > _MAX_LOCAL or not _LOCAL.fullmatch(local):
        return "invalid local part before the @ of the mail address"
    return "" if _LITERAL.fullmatch(domain) else _bad_host(domain)


def _bad_uri(contents: bytes) -> str:
    if problem := _bad_ia5(contents):
        return problem
    uri = contents.decode("ascii")
    if _BRACED_GUID.fullmatch(uri):
        return ""
    scheme, colon, rest = uri.partition(":")
    if not colon or not rest or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return "a URI must be absolute: scheme:rest"
    if not _URI_CHARACTERS.fullmatch(uri) or not _URI.fullmatch(uri):
        return "the URI does not follow the syntax of RFC 3986"
    return ""


def _bad_ip(contents: bytes) -> str:
    return "" if len(contents) in _IP_SIZES else "an address must have 4 or 16 bytes"


def _bad_other_name(contents: bytes) -> str:
    oid, element = read_other_name(contents)
    if problem := bad_oid(oid) or _bad_der(element, _MAX_DEPTH):
        return problem
    if oid != UPN:
        return ""
    tag, value = Der(element).any()
    if tag != UTF8_STRING or not value:
        return "a user principal name must be a UTF8String that is not empty"
    principal = value.decode("utf-8")
    trimmed = principal == principal.strip()
    return "" if trimmed else "a user principal name must not begin or end with a space"


def _bad_der(element: bytes, depth: int) -> str:
    """Check an element and, if it is constructed, everything in it."""
    tag, contents = Der(element).any()
    if tag in _CODECS:
        return _bad_text(tag, contents)
    if not tag:
        return "its value has the invalid tag 0"
    if not tag & _CONSTRUCTED:
        return ""
    if not depth:
        return "its value is nested too deeply"
    inner = Der(contents)
    while inner.more():
        if problem := _bad_der(inner.element(), depth - 1):
            return problem
    return ""


def _bad_directory(contents: bytes) -> str:
    return "the name is empty" if contents == tlv(SEQUENCE) else bad_name(contents, strict=True)


_GENERAL_NAMES: Final = {
    0xA0: ("otherName", _bad_other_name),
    0x81: ("rfc822Name", _bad_mail),
    0x82: ("dNSName", _bad_dns),
    0xA4: ("directoryName", _bad_directory),
    0x86: ("uniformResourceIdentifier", _bad_uri),
    0x87: ("iPAddress", _bad_ip),
    0x88: ("registeredID", bad_oid),
}
