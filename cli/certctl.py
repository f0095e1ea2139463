"""Convert certctl's CERTCTL_SCEP_* variables to SCEP profiles. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

from shared.config.fields import write_duration

_PREFIX: Final = "CERTCTL_SCEP_"
_PROFILE: Final = "CERTCTL_SCEP_PROFILE_"
_TRUE: Final = ("true", "1", "yes")
_FALSE: Final = ("false", "0", "no", "")
_MILLISECONDS: Final = {
    "h": Fraction(3_600_000),
    "m": Fraction(60_000),
    "s": Fraction(1000),
    "ms": Fraction(1),
    "us": Fraction(1, 1000),
    "\u00b5s": Fraction(1, 1000),
    "\u03bcs": Fraction(1, 1000),
    "ns": Fraction(1, 1_000_000),
}
_GO_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|\u00b5s|\u03bcs|ns|m|s)")
_LONGEST: Final = 10**12
_LONG: Final = 100
_PATH_ID: Final = re.compile("[a-z0-9]([a-z0-9-]*[a-z0-9])?")
# Name of the profile of the single-profile form, which /scep itself serves.
DEFAULT: Final = "default"


class NotImportableError(Exception):
    """Raised for a variable that cannot be converted; the message names it and says what to do."""


def _text(value: str) -> str:
    return value


def _boolean(value: str) -> bool:
    """Parse a boolean; reject unknown values, which certctl silently takes for false."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise NotImportableError("not a boolean, and certctl reads it as false: write true or false")


def _duration(value: str) -> str:
    """Convert a Go duration ("1h30m") to the form of this configuration."""
    text = value.removeprefix("+")
    parts = _GO_PART.findall(text)
    if text == "0":
        return "0s"
    if not parts or len(text) > _LONG or "".join(n + unit for n, unit in parts) != text:
        raise NotImportableError('not a duration: write "60m" or "1h30m"')
    milliseconds = sum(
        (_fraction(number) * _MILLISECONDS[unit] for number, unit in parts), Fraction(0)
    )
    if milliseconds.denominator != 1 or milliseconds > _LONGEST:
        raise NotImportableError("must be a whole number of milliseconds, at most 1000000000s")
    return write_duration(int(milliseconds) / 1000)


def _fraction(number: str) -> Fraction:
    """Return the exact value of a decimal number; Go allows ".5" and "5."."""
    whole, _, part = number.partition(".")
    return Fraction(int(f"{whole}{part}"), 10 ** len(part))


def _whole(value: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", value):
        raise NotImportableError("not a whole number")
    return int(value)


_KEYS: Final[Mapping[str, Callable[[str], Any]]] = {
    "ISSUER_ID": _text,
    "PROFILE_ID": _text,
    "CHALLENGE_PASSWORD": _text,
    "RA_CERT_PATH": _text,
    "RA_KEY_PATH": _text,
    "MTLS_ENABLED": _boolean,
    "MTLS_CLIENT_CA_TRUST_BUNDLE_PATH": _text,
    "INTUNE_ENABLED": _boolean,
    "INTUNE_CONNECTOR_CERT_PATH": _text,
    "INTUNE_AUDIENCE": _text,
    "INTUNE_CHALLENGE_VALIDITY": _duration,
    "INTUNE_CLOCK_SKEW_TOLERANCE": _duration,
    "INTUNE_PER_DEVICE_RATE_LIMIT_24H": _whole,
}
_FLAT: Final = ("ISSUER_ID", "PROFILE_ID", "CHALLENGE_PASSWORD", "RA_CERT_PATH", "RA_KEY_PATH")


def import_profiles(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the profiles' tables by path ID, with this configuration's key names.

    `NotImportableError` names a variable that is unknown or has an unusable value.
    """
    ours = {name: value for name, value in variables.items() if name.startswith(_PREFIX)}
    named = [item.strip() for item in ours.get("CERTCTL_SCEP_PROFILES", "").split(",")]
    names = [item for item in named if item]
    found = dict(_structured(ours, names)) if names else {DEFAULT: _flat(ours)}
    known = {"CERTCTL_SCEP_ENABLED", "CERTCTL_SCEP_PROFILES", *_used(names)}
    known |= {_PREFIX + key for key in _FLAT}
    for name in sorted(set(ours) - known):
        raise NotImportableError(
            f"{name}: no such setting, or its profile is not in CERTCTL_SCEP_PROFILES"
        )
    return found


def _used(names: list[str]) -> Iterator[str]:
    yield from (f"{_PROFILE}{name.upper()}_{key}" for name in names for key in _KEYS)


def _structured(
    variables: Mapping[str, str], names: list[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    seen = set()
    for name in names:
        path_id = name.lower()
        if not _PATH_ID.fullmatch(path_id) or path_id in seen:
            raise NotImportableError(f"CERTCTL_SCEP_PROFILES: {name}: not a path ID, or duplicate")
        seen.add(path_id)
        yield path_id, _table(variables, f"{_PROFILE}{name.upper()}_", tuple(_KEYS))


def _flat(variables: Mapping[str, str]) -> dict[str, Any]:
    return {"issuer_id": "iss-local"} | _table(variables, _PREFIX, _FLAT)


def _table(variables: Mapping[str, str], prefix: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the keys that are set; an empty variable is unset, as in certctl."""
    table = {}
    for key in keys:
        value = variables.get(prefix + key, "")
        if not value:
            continue
        try:
            value.encode("utf-8")
            table[key.lower()] = _KEYS[key](value)
        except UnicodeEncodeError:
            raise NotImportableError(f"{prefix}{key}: not UTF-8 text") from None
        except NotImportableError as error:
            raise NotImportableError(f"{prefix}{key}: {error}") from None
    return table


def read_variables(text: str) -> dict[str, str]:
    """Parse an environment file: NAME=value lines, comments, `export`, quotes around a value."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name.strip()] = value
    return found
