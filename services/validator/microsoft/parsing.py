"""Reads Microsoft's answers. Everything in them is untrusted: checked for type, and bounded. Pure.

A value of another shape counts as missing. `UnreadableError` is raised if nothing can be made of
an answer; it does not quote it.
"""

import base64
import binascii
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from services.validator.microsoft.model import (
    MAX_REVOCATIONS,
    Answer,
    EntraDevice,
    ManagedDevice,
    RevocationAsked,
)
from shared.limits import shortened
from shared.text.printable import visible
from shared.x509.sid import is_sid

UNKNOWN: Final = "unknown"
COMPLIANCE: Final = frozenset(
    {"unknown", "compliant", "noncompliant", "conflict", "error", "inGracePeriod", "configManager"}
)
MAX_ENDPOINTS: Final = 1000
_WORDS: Final = 500
_NAME: Final = 128
_CONTEXT: Final = 8192
_URL: Final = 2048
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
_GUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_CODE: Final = re.compile(r"[ -~]{1,128}")
_ERROR_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SERIAL: Final = re.compile(r"[0-9A-Fa-f: ]{1,128}|0[xX][0-9A-Fa-f]{1,126}")
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)?", re.ASCII
)
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_=-]{40,}")
_LONGEST_WAIT: Final = 86400.0
_MAX_ROLES: Final = 64
_JWS_PARTS: Final = 3


class UnreadableError(Exception):
    """Raised for an answer that is not JSON, or not of the shape that is documented."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and for how many seconds it is valid."""

    value: str = field(repr=False)
    expires_in: float


@dataclass(frozen=True, slots=True)
class TokenError:
    """Why Entra ID gave no token; `description` may quote what was sent: only look numbers up."""

    error: str
    description: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """One page of a tenant's services: name in lower case to URI, and the next page's URL or ""."""

    services: Mapping[str, str]
    following: str


def read_json(content: bytes) -> Mapping[str, Any]:
    """Return the JSON object; a leading byte order mark is ignored."""
    try:
        found = msgspec.json.decode(content.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise UnreadableError("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise UnreadableError("the answer is not a JSON object")
    return found


def line(value: object, longest: int = _WORDS) -> str:
    """Return a text as one printable line; "" for other types.

    Long base64 is left out: an answer may repeat the CSR or the challenge.
    """
    if not isinstance(value, str):
        return ""
    text = _ENCODED.sub("...", value[: 64 * longest])
    return shortened(" ".join(visible(text).split())[:longest])


def read_token(content: bytes) -> Token:
    """Read a token of Entra ID."""
    found = read_json(content)
    token, kind = found.get("access_token"), found.get("token_type", "Bearer")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UnreadableError("the answer holds no token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise UnreadableError("the token is not a bearer token")
    return Token(token, _lifetime(found.get("expires_in")))


def _lifetime(value: object) -> float:
    """Return seconds from a number or a text with one; 0 without a usable one."""
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        seconds = float(value)
    except OverflowError:
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_WAIT) if math.isfinite(seconds) else 0.0


def read_token_error(content: bytes) -> TokenError:
    """Read an error of Entra ID; both fields are "" if it is not one."""
    try:
        found = read_json(content)
    except UnreadableError:
        return TokenError("", "")
    error, description = found.get("error"), found.get("error_description")
    known = isinstance(error, str) and _ERROR_CODE.fullmatch(error)
    return TokenError(
        str(error) if known else "",
        description[:4096] if isinstance(description, str) else "",
    )


def read_error_code(content: bytes) -> str:
    """Return the `error.code` of an error of Graph or Intune, "" if there is none."""
    try:
        error = read_json(content).get("error")
    except UnreadableError:
        return ""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""


def roles_of(token: str) -> tuple[str, ...]:
    """Return the roles claim of a token, for display: the token is not verified."""
    parts = token.split(".")
    if len(parts) != _JWS_PARTS:
        return ()
    try:
        payload = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), b"-_", validate=True)
        roles = read_json(payload).get("roles")
    except (UnreadableError, binascii.Error, ValueError):
        return ()
    found = roles[:_MAX_ROLES] if isinstance(roles, list) else []
    return tuple(line(each, _NAME) for each in found if isinstance(each, str))


def read_endpoints(content: bytes) -> Endpoints:
    """Read a page of services; the first of several with one name counts."""
    found = read_json(content)
    entries = found.get("value")
    if not isinstance(entries, list):
        raise UnreadableError("the answer holds no list of services")
    services: dict[str, str] = {}
    for name, uri in _endpoints(entries[:MAX_ENDPOINTS]):
        services.setdefault(name, uri)
    following = found.get("@odata.nextLink")
    usable = isinstance(following, str) and len(following) <= _URL
    return Endpoints(services, following if usable and isinstance(following, str) else "")


def _endpoints(entries: list[Any]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        name, uri = entry.get("providerName") or entry.get("serviceName"), entry.get("uri")
        if not isinstance(name, str) or not isinstance(uri, str):
            continue
        if len(name) <= _NAME and 0 < len(uri) <= _URL:
            yield name.lower(), uri.rstrip("/")


def read_answer(content: bytes) -> Answer:
    """Read the result of a SCEP action; an unusable code is ""."""
    found = read_json(content)
    code = found.get("code")
    usable = isinstance(code, str) and _CODE.fullmatch(code)
    return Answer(str(code) if usable else "", line(found.get("errorDescription")))


def read_revocations(content: bytes) -> tuple[RevocationAsked, ...]:
    """Read revocation requests; those without a usable context cannot be answered and are left out.

    Names of members are compared without regard to case, as Microsoft's own library does.
    """
    entries = _lowered(read_json(content)).get("value")
    if not isinstance(entries, list):
        raise UnreadableError("the answer holds no list of revocation requests")
    found = (_revocation(_lowered(each)) for each in entries if isinstance(each, dict))
    return tuple(each for each in found if each is not None)[:MAX_REVOCATIONS]


def _revocation(entry: Mapping[str, Any]) -> RevocationAsked | None:
    context, serial = entry.get("requestcontext"), entry.get("serialnumber")
    if not isinstance(context, str) or not 0 < len(context) <= _CONTEXT:
        return None
    usable = isinstance(serial, str) and _SERIAL.fullmatch(serial)
    return RevocationAsked(
        context,
        str(serial) if usable else "",
        line(entry.get("issuername")),
        line(entry.get("caconfiguration"), _NAME),
    )


def read_uploaded(content: bytes) -> bool:
    """Return whether Intune accepted the results: true, or "true" as its library also accepts."""
    value = _lowered(read_json(content)).get("value")
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _lowered(table: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name.lower(): value for name, value in table.items()}


def read_managed_device(content: bytes) -> ManagedDevice:
    """Read a device of Intune."""
    return _managed(read_json(content))


def read_managed_devices(content: bytes) -> ManagedDevice | None:
    """Read the devices with one Entra ID: the one that was seen last counts, None if there is none.

    A device that was enrolled again may still have its earlier entry.
    """
    entries = read_json(content).get("value")
    if not isinstance(entries, list):
        raise UnreadableError("the answer holds no list of devices")
    devices = [_managed(each) for each in entries if isinstance(each, dict)]
    return max(devices, key=lambda device: device.last_sync_at, default=None)


def _managed(found: Mapping[str, Any]) -> ManagedDevice:
    compliance = found.get("complianceState")
    return ManagedDevice(
        id=guid(found.get("id")),
        entra_id=guid(found.get("azureADDeviceId")),
        compliance=(
            compliance if isinstance(compliance, str) and compliance in COMPLIANCE else UNKNOWN
        ),
        grace_until=read_time(found.get("complianceGracePeriodExpirationDateTime")),
        enrolled_at=read_time(found.get("enrolledDateTime")),
        last_sync_at=read_time(found.get("lastSyncDateTime")),
        user=line(found.get("userPrincipalName"), 2 * _NAME),
        os=line(found.get("operatingSystem"), _NAME),
    )


def read_entra_device(content: bytes) -> EntraDevice:
    """Read a device of Entra ID."""
    found = read_json(content)
    return EntraDevice(
        id=guid(found.get("id")),
        entra_id=guid(found.get("deviceId")),
        enabled=_flag(found.get("accountEnabled")),
        compliant=_flag(found.get("isCompliant")),
        managed=_flag(found.get("isManaged")),
        compliance_expires_at=read_time(found.get("complianceExpirationDateTime")),
    )


def read_account_sid(content: bytes) -> str | None:
    """Return the SID of an account or a computer in Active Directory; None if it has none."""
    sid = read_json(content).get("onPremisesSecurityIdentifier")
    return sid if isinstance(sid, str) and is_sid(sid) else None


def guid(value: object) -> str:
    """Return a GUID in lower case, "" for anything else."""
    return value.lower() if isinstance(value, str) and _GUID.fullmatch(value) else ""


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def read_time(value: object) -> float:
    """Return the Unix seconds of an ISO 8601 time, to the second; 0 without one.

    Microsoft writes the year 1 or 9999 for "never"; years before 1970 are 0.
    """
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return 0.0
    try:
        offset = "+00:00" if found[2] in (None, "Z") else found[2]
        return max(datetime.fromisoformat(found[1] + offset).timestamp(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def write_time(seconds: float) -> str:
    """Write Unix seconds as Intune expects a time: ISO 8601 in UTC, with milliseconds."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds of a Retry-After header, None without a valid one.

    Beside RFC 9110's forms, Intune sends fractions: "2.128". `now` is in Unix seconds.
    """
    value = value.strip()[:64]
    if value.isascii() and _SECONDS.fullmatch(value):
        return min(float(value), _LONGEST_WAIT)
    try:
        return min(max(parsedate_to_datetime(value).timestamp() - now, 0.0), _LONGEST_WAIT)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
