"""Which profile and operation a request line means, and the message in a GET. Pure."""

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
_CRL: Final = re.compile(rf"/crl/({_PATH_ID})(?:/([0-9a-f]{{64}}))?\.crl")
_BASE64_SPACE: Final = bytes.maketrans(b"-_ ", b"+/+")


class Target(NamedTuple):
    """The profile a path names, None where it names none, and whether by the mTLS sibling."""

    profile: str | None
    mtls: bool = False


def target_of(path: str, default: str | None) -> Target:
    """What a path names, whatever suffixes a client appended to it."""
    bare = path[: _end(path.lower())]
    if bare.lower() == "/scep" or (not bare and path.rstrip("/")):
        return Target(default)
    if found := _MTLS.fullmatch(bare):
        return Target(found[1], mtls=True)
    found = _PROFILE.fullmatch(bare)
    return Target(found[1] if found else None)


def crl_of(path: str) -> tuple[str, str] | None:
    """(issuer, SPKI SHA-256 of the CA or "" for the current one) of /crl/<issuer>.crl."""
    found = _CRL.fullmatch(path)
    return (found[1], found[2] or "") if found else None


def _end(path: str) -> int:
    """Where a lower-cased path ends without its suffixes and slashes; linear in its length."""
    end = len(path)
    while True:
        while path.endswith("/", 0, end):
            end -= 1
        suffix = next((s for s in _SUFFIXES if path.endswith(s, 0, end)), None)
        if suffix is None:
            return end
        end -= len(suffix)


def query_values(query: bytes) -> dict[bytes, bytes]:
    """The raw values of a query string, the first of each name, nothing decoded."""
    values: dict[bytes, bytes] = {}
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        values.setdefault(name.lower(), value)
    return values


def operation_of(query: dict[bytes, bytes]) -> str | None:
    """Return the operation's name as the RFC spells it, None for an unknown one."""
    given = query.get(b"operation", b"").decode("ascii", "replace")
    return _OPERATIONS.get(given.lower())


def decode_message(raw: bytes) -> bytes | None:
    """The bytes of a GET's `message`: base64 as clients write it; None for anything else.

    `+` comes unescaped (macOS) and so may have become a space; base64url, line breaks and missing
    padding are all seen.
    """
    text = unquote_to_bytes(raw).translate(_BASE64_SPACE, b"\r\n\t")
    text = text.rstrip(b"=")
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None
