"""Which attributes a subject may have where a challenge is for a certain device. Pure.

What a challenge names is the CN; everything else in the subject is the device's own word. An OU, a
UID or a domain gives rights at some relying parties, so they need the operator's leave.
"""

from collections.abc import Iterator
from typing import Final

from shared.dn import escaped
from shared.names import attribute_kind
from shared.scep.asn1 import (
    BMP_STRING,
    IA5_STRING,
    OID,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    T61_STRING,
    UNIVERSAL_STRING,
    UTF8_STRING,
    Der,
    text,
)
from shared.x509names import ANY_ATTRIBUTE, PLAIN_ATTRIBUTES

PLAIN: Final = frozenset(PLAIN_ATTRIBUTES)
_COMMON_NAME: Final = "CN"
# RFC 5280 A.1; PKCS #9 (RFC 2985 B) and RFC 4519 give three types an IA5String.
_DIRECTORY_STRINGS: Final = frozenset(
    {UTF8_STRING, PRINTABLE_STRING, BMP_STRING, UNIVERSAL_STRING, T61_STRING}
)
_IA5_TYPES: Final = frozenset({"emailAddress", "DC", "unstructuredName"})


def attributes(subject: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield (type, tag, contents) of each attribute of a Name (DER); `ScepError` if it is none."""
    rdns = Der(subject).enter(SEQUENCE)
    while rdns.more():
        rdn = rdns.enter(SET)
        while rdn.more():
            attribute = rdn.enter(SEQUENCE)
            yield attribute_kind(attribute.value(OID)), *attribute.any()
            attribute.finish()


def common_names(subject: bytes) -> list[str] | None:
    """Return the subject's CNs; None where one is of another type than a name is written in."""
    found = [(tag, value) for kind, tag, value in attributes(subject) if kind == _COMMON_NAME]
    if any(tag not in _DIRECTORY_STRINGS for tag, _ in found):
        return None
    return [text(tag, value) for tag, value in found]


def misfit(subject: bytes, allowed: frozenset[str]) -> str:
    """Return the first attribute that may not stand beside the CN, "" where there is none."""
    named = False
    for kind, tag, value in attributes(subject):
        if kind == _COMMON_NAME:
            if named:
                return "a second CN"
            named = True
        elif kind not in allowed and ANY_ATTRIBUTE not in allowed:
            return f"{kind}={escaped(text(tag, value))}"
        if tag not in _DIRECTORY_STRINGS and not (tag == IA5_STRING and kind in _IA5_TYPES):
            return f"{kind} of a type that is no string of names"
    return ""


def told(allowed: frozenset[str]) -> str:
    """Return what may stand there, for the record."""
    return ", ".join((_COMMON_NAME, *sorted(allowed)))
