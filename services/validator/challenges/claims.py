"""The claims of a verified token, with one parser for each version. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from services.validator.challenges.jws import MalformedTokenError, read_object

# The end of the year 9999; a later time cannot be meant.
_LAST_SECOND: Final = 253_402_300_799


# Unix seconds, with or without a fraction, exactly as written (RFC 7519 s2).
NumericDate = int | Decimal


class UnknownVersionError(Exception):
    """Raised for a token whose version has no parser."""


@dataclass(frozen=True, slots=True)
class Claims:
    """A token's claims; times are Unix seconds, None stands for a missing claim."""

    issuer: str
    subject: str
    issued_at: NumericDate
    expires_at: NumericDate
    nonce: str
    audience: tuple[str, ...] | None = None
    device_name: str | None = None
    san_dns: tuple[str, ...] | None = None
    san_rfc822: tuple[str, ...] | None = None
    san_upn: tuple[str, ...] | None = None


Payload: TypeAlias = Mapping[str, Any] | MalformedTokenError


def read_payload(payload: bytes) -> Payload:
    """Parse a payload once, for both uses of it; return an error for the gates to report."""
    try:
        return read_object(payload, "payload")
    except MalformedTokenError as error:
        return error


def read_claims(payload: Payload) -> Claims:
    """Return the claims of a payload.

    Raises `MalformedTokenError`, or `UnknownVersionError` (the version gate).
    """
    if isinstance(payload, MalformedTokenError):
        raise payload
    version = payload.get("version", "")
    parser = PARSERS.get(version) if isinstance(version, str) else None
    if parser is None:
        raise UnknownVersionError
    return parser(payload)


def issuer_of(payload: Payload) -> str:
    """Return the issuer that an unverified token names; it selects the anchors, nothing else."""
    issuer = payload.get("iss") if isinstance(payload, Mapping) else None
    return issuer if isinstance(issuer, str) else ""


def _v1(fields: Mapping[str, Any]) -> Claims:
    """Parse the first version; unknown claims are ignored, required ones must be there."""
    return Claims(
        issuer=_text(fields, "iss"),
        subject=_text(fields, "sub"),
        issued_at=_time(fields, "iat"),
        expires_at=_time(fields, "exp"),
        nonce=_text(fields, "nonce"),
        audience=_audience(fields),
        device_name=_optional_text(fields, "device_name"),
        san_dns=_names(fields, "san_dns"),
        san_rfc822=_names(fields, "san_rfc822"),
        san_upn=_names(fields, "san_upn"),
    )


# A new version adds a parser; the gates do not change.
PARSERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Claims]]] = MappingProxyType(
    {"": _v1, "v1": _v1}
)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise MalformedTokenError(f"claim {name} is missing or not a string")
    return value


def _optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    if name not in fields:
        return None
    if not isinstance(fields[name], str):
        raise MalformedTokenError(f"claim {name} is not a string")
    return str(fields[name])


def _audience(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return one audience or several (RFC 7519 s4.1.3)."""
    if isinstance(fields.get("aud"), list):
        return _names(fields, "aud")
    audience = _optional_text(fields, "aud")
    return None if audience is None else (audience,)


def _time(fields: Mapping[str, Any], name: str) -> NumericDate:
    value = fields.get(name)
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if not is_number or not 0 < value <= _LAST_SECOND:  # type: ignore[operator]  # a number
        raise MalformedTokenError(f"claim {name} is missing or not a Unix time")
    return value  # type: ignore[return-value]  # a number


def _names(fields: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    if name not in fields:
        return None
    values = fields[name]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise MalformedTokenError(f"claim {name} is not an array of strings")
    return tuple(values)
