"""Which attributes a subject may hold if the challenge is for a certain device. Pure.

A challenge vouches for the CN; everything else in the subject is the device's own claim. An OU, a
UID or a domain grants rights at some relying parties, so each needs the operator's permission.
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
# RFC 5280 A.1. PKCS #9 (RFC 2985 B) and RFC 4519 define three types as IA5String.
_DIRECTORY_STRINGS: Final = frozenset(
    {UTF8_STRING, PRINTABLE_STRING, BMP_STRING, UNIVERSAL_STRING, T61_STRING}
)
_IA5_TYPES: Final = frozenset({"emailAddress", "DC", "unstructuredName"})


def common_names(subject: bytes) -> list[str] | None:
    """Return the subject's CNs; None if one is not of a DirectoryString type."""
    found = [each for each in read_attributes(subject) if each.kind == _COMMON_NAME]
    if any(each.tag not in _DIRECTORY_STRINGS for each in found):
        return None
    return [each.text for each in found]


def first_disallowed(subject: bytes, allowed: frozenset[str]) -> str:
    """Return the first attribute that may not stand beside the CN, "" if there is none."""
    named = False
    for attribute in read_attributes(subject):
        kind, tag = attribute.kind, attribute.tag
        if kind == _COMMON_NAME:
            if named:
                return "more than one CN"
            named = True
        elif kind not in allowed and ANY_ATTRIBUTE not in allowed:
            return f"{kind}={escaped(attribute.text)}"
        if tag not in _DIRECTORY_STRINGS and not (tag == IA5_STRING and kind in _IA5_TYPES):
            return f"{kind} has an unsupported string type"
    return ""


def allowed_text(allowed: frozenset[str]) -> str:
    """Return the names of the allowed attributes, for the record."""
    return ", ".join((_COMMON_NAME, *sorted(allowed)))
