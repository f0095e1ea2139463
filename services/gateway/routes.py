"""Parsing of request lines: the profile, the operation and a GET's message. Pure."""

import base64
import binascii
import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

_SUFFIXES: Final = ("/cgi-bin/pkiclient.exe", "/certsrv/mscep/mscep.dll", "/pkiclient.exe")
_OPERATIONS: Final = {
    name.lower(): name for name in ("GetCACaps", "GetCACert", "GetNextCACert", "PKIOperation")
}
_PATH_ID: Final = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_PROFILE: Final = re.compile(rf"/(?i:scep)/({_PATH_ID})")
_MTLS: Final = re.compile(rf"/(?i:scep-mtls)/({_PATH_ID})")
_CRL: Final = re.compile(
    rf"/crl/({_PATH_ID})(?:/([0-9a-f]{{64}})(?:/([0-9]{{1,3}}-[0-9]{{1,3}}))?)?\.crl"
)
_OCSP: Final = re.compile(rf"/ocsp/({_PATH_ID})(?:/(.*))?", re.DOTALL)
_BASE64_SPACE: Final = bytes.maketrans(b"-_ ", b"+/+")


class Target(NamedTuple):
    """The SCEP profile in a path (None if it names none), and whether it is the mTLS path."""

    profile: str | None
    mtls: bool = False


def target_of(path: str, default: str | None) -> Target:
    """Return the target of a path, ignoring the suffixes that clients append."""
    bare = path[: _end(path.lower())]
    if bare.lower() == "/scep" or (not bare and path.rstrip("/")):
        return Target(default)
    if found := _MTLS.fullmatch(bare):
        return Target(found[1], mtls=True)
    found = _PROFILE.fullmatch(bare)
    return Target(found[1] if found else None)


class CrlTarget(NamedTuple):
    """A CRL in a path; `pin` is "" for the current CA, `partition` "" for the complete CRL."""

    issuer: str
    pin: str = ""
    partition: str = ""


def crl_of(path: str) -> CrlTarget | None:
    """Return the CRL that a path names, or None for any other path.

    The paths are /crl/<issuer>.crl, /crl/<issuer>/<CA's SPKI SHA-256>.crl and, of a partition,
    /crl/<issuer>/<CA's SPKI SHA-256>/<name>.crl.
    """
    found = _CRL.fullmatch(path)
    return CrlTarget(found[1], found[2] or "", found[3] or "") if found else None


def ocsp_of(path: str) -> tuple[str, str] | None:
    """Return (issuer, a GET's base64 request) of /ocsp/<issuer>[/<request>], or None."""
    found = _OCSP.fullmatch(path)
    return (found[1], found[2] or "") if found else None


def _end(path: str) -> int:
    """Return the length of a lower-case path without suffixes and trailing slashes, in O(n)."""
    end = len(path)
    while True:
        while path.endswith("/", 0, end):
            end -= 1
        suffix = next((s for s in _SUFFIXES if path.endswith(s, 0, end)), None)
        if suffix is None:
            return end
        end -= len(suffix)


def query_values(query: bytes) -> dict[bytes, bytes]:
    """Return the first raw, undecoded value of each lower-cased name in a query string."""
    values: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        values.setdefault(name.lower(), value)
    return values


def operation_of(query: dict[bytes, bytes]) -> str | None:
    """Return the operation's name as the RFC spells it, or None if it is unknown."""
    given = query.get(b"operation", b"").decode("ascii", "replace")
    return _OPERATIONS.get(given.lower())


def decode_message(raw: bytes) -> bytes | None:
    """Decode the base64 `message` of a GET; return None if it is malformed."""
    return decode_base64(unquote_to_bytes(raw))


def decode_base64(text: bytes) -> bytes | None:
    """Decode base64 from a URL; return None if it is malformed.

    Accepts what clients send: an unescaped `+` (macOS), which may have become a space, base64url,
    line breaks and missing padding.
    """
    text = text.translate(_BASE64_SPACE, b"\r\n\t")
    text = text.rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
