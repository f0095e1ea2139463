"""Which attributes a subject may have where a challenge is for a certain device. Pure.

What a challenge names is the CN; everything else in the subject is the device's own word. An OU, a
UID or a domain gives rights at some relying parties, so they need the operator's leave.
"""

from typing import Final

from shared.scep.asn1 import (
    BMP_STRING,
    IA5_STRING,
    PRINTABLE_STRING,
    T61_STRING,
    UNIVERSAL_STRING,
    UTF8_STRING,
)
from shared.x509.dn import escaped
from shared.x509.names import read_attributes
from shared.x509.usages import ANY_ATTRIBUTE, PLAIN_ATTRIBUTES

PLAIN: Final = frozenset(PLAIN_ATTRIBUTES)
_COMMON_NAME: Final = "CN"
# RFC 5280 A.1; PKCS #9 (RFC 2985 B) and RFC 4519 give three types an IA5String.
_DIRECTORY_STRINGS: Final = frozenset(
    {UTF8_STRING, PRINTABLE_STRING, BMP_STRING, UNIVERSAL_STRING, T61_STRING}
)
_IA5_TYPES: Final = frozenset({"emailAddress", "DC", "unstructuredName"})


def common_names(subject: bytes) -> list[str] | None:
    """Return the subject's CNs; None where one is of another type than a name is written in."""
    found = [each for each in read_attributes(subject) if each.kind == _COMMON_NAME]
    if any(each.tag not in _DIRECTORY_STRINGS for each in found):
        return None
    return [each.text for each in found]


def misfit(subject: bytes, allowed: frozenset[str]) -> str:
    """Return the first attribute that may not stand beside the CN, "" where there is none."""
    named = False
    for attribute in read_attributes(subject):
        kind, tag = attribute.kind, attribute.tag
        if kind == _COMMON_NAME:
            if named:
                return "a second CN"
            named = True
        elif kind not in allowed and ANY_ATTRIBUTE not in allowed:
            return f"{kind}={escaped(attribute.text)}"
        if tag not in _DIRECTORY_STRINGS and not (tag == IA5_STRING and kind in _IA5_TYPES):
            return f"{kind} of a type that is no string of names"
    return ""


def told(allowed: frozenset[str]) -> str:
    """Return what may stand there, for the record."""
    return ", ".join((_COMMON_NAME, *sorted(allowed)))
