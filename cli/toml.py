"""Setting keys in a TOML file that people edit too: every other line stays as it is."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from shared.config.load import SettingsError

_BY_HAND: Final = "[{}] is not written as `up` writes it: edit it by hand"


def set_keys(text: str, table: str, keys: Mapping[str, Any]) -> str:
    """The text with these keys of a table set, or removed where the value is None.

    Keys must stand on a line of their own, as `up` writes them; `SettingsError` where what comes
    out would not say exactly that.
    """
    lines = text.splitlines()
    try:
        start = lines.index(f"[{table}]") + 1
    except ValueError:
        raise SettingsError(
            f"[{table}] is not written as `up` writes it: edit it by hand"
        ) from None
    ends = (i for i in range(start, len(lines)) if lines[i].startswith("["))
    stop = next(ends, len(lines))
    kept = [line for line in lines[start:stop] if line.partition("=")[0].strip() not in keys]
    new = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
    result = "\n".join([*lines[:start], *new, *kept, *lines[stop:]]) + "\n"
    _check(text, result, table, keys)
    return result


def _check(before: str, after: str, table: str, keys: Mapping[str, Any]) -> None:
    """Nothing but these keys may have changed."""
    wanted = tomllib.loads(before)
    place = wanted
    for part in table.split("."):
        place = place[part]
    for key, value in keys.items():
        place.pop(key, None)
        if value is not None:
            place[key] = value
    try:
        found = tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        found = {}
    if found != wanted:
        raise SettingsError(_BY_HAND.format(table))
