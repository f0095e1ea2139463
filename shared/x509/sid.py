"""The extension that maps a certificate to an account of Active Directory, by its SID. Pure.

Domain controllers log an account on by the SID in it (szOID_NTDS_CA_SECURITY_EXT, [MS-WCCE]
2.2.2.7.7.4), so it is as powerful as the account. Its value is a GeneralNames with one otherName,
whose value is the SID's text in an OCTET STRING.
"""

import re
from typing import Final

from shared.scep.asn1 import CONSTRUCTED_0, OCTET_STRING, SEQUENCE, Der, object_identifier, tlv
from shared.scep.errors import ScepError

SID: Final = "1.3.6.1.4.1.311.25.2"
_OBJECT_SID: Final = object_identifier("1.3.6.1.4.1.311.25.2.1")
# An account of a domain: three numbers for the domain, one for the account in it.
_ACCOUNT: Final = re.compile(r"S-1-5-21((?:-(?:0|[1-9][0-9]{0,9})){4})")
_URI: Final = re.compile(r"tag:microsoft\.com,2022-09-14:sid:(.*)", re.IGNORECASE | re.DOTALL)
_LARGEST: Final = 2**32 - 1


def is_sid(text: str) -> bool:
    """Return whether a text is the SID of an account in a domain: S-1-5-21-A-B-C-RID."""
    found = _ACCOUNT.fullmatch(text)
    return found is not None and all(int(n) <= _LARGEST for n in found[1].split("-")[1:])


def sid_in_uri(uri: str) -> str | None:
    """Return the SID in a SAN URI by which domain controllers map too, None in any other URI."""
    found = _URI.fullmatch(uri)
    return found[1].upper() if found else None


def write_sid(sid: str) -> bytes:
    """Return the extension's value (DER) for a SID that `is_sid` accepts."""
    text = tlv(OCTET_STRING, sid.encode("ascii"))
    return tlv(SEQUENCE, tlv(CONSTRUCTED_0, _OBJECT_SID, tlv(CONSTRUCTED_0, text)))


def read_sid(value: bytes) -> str:
    """Return the SID of an extension's value (DER); "" if it is not exactly what we write."""
    try:
        other_name = Der(value).enter(SEQUENCE).enter(CONSTRUCTED_0)
        other_name.element()
        sid = other_name.enter(CONSTRUCTED_0).value(OCTET_STRING).decode("ascii", "replace")
    except ScepError:
        return ""
    return sid if is_sid(sid) and value == write_sid(sid) else ""
