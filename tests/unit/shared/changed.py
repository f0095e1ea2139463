"""The complete configuration, changed key by key."""

import base64
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli_w

PROFILE: Final = "corp-2"
TABLE: Final = f"profiles.{PROFILE}"
_POINT: Final = bytes.fromhex("06072a8648ce3d0201")


def change(path: Path, table: str = TABLE, **keys: Any) -> Path:
    """Set keys of a table, "" for the file's own; None removes one."""
    found = tomllib.loads(path.read_text())
    place = found
    for part in filter(None, table.split(".")):
        place = place.setdefault(part, {})
    for key, value in keys.items():
        place.pop(key, None)
        if value is not None:
            place[key] = value
    return rewrite(path, found)


def add_profile(path: Path, name: str, **keys: Any) -> Path:
    """One more profile: corp-2's keys, and these instead; None removes one."""
    found = tomllib.loads(path.read_text())
    merged = found["profiles"][PROFILE] | keys
    found["profiles"][name] = {key: value for key, value in merged.items() if value is not None}
    return rewrite(path, found)


def rewrite(path: Path, tables: Mapping[str, Any]) -> Path:
    path.write_text(tomli_w.dumps(tables))
    return path


def of_unknown_kind(der: bytes) -> bytes:
    """The same DER, its EC key now of an algorithm that nobody has heard of."""
    at = der.index(_POINT) + len(_POINT) - 1
    return der[:at] + b"\x63" + der[at + 1 :]


def armoured(label: str, der: bytes) -> bytes:
    """DER as PEM."""
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()
