"""Set keys in a TOML file that people also edit: every other line is left as it is."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from shared.config.load import SettingsError

_BY_HAND: Final = (
    "[{}] cannot be changed, because it does not have the layout that `up` writes:"
    " make the change by hand"
)


def set_keys(text: str, table: str, keys: Mapping[str, Any]) -> str:
    """Return the text with these keys of a table set, or removed if the value is None.

    Each key must be on its own line, as `up` writes them. `SettingsError` if the result would not
    differ in exactly these keys.
    """
    lines = text.splitlines()
    try:
        start = lines.index(f"[{table}]") + 1
    except ValueError:
        raise SettingsError(_BY_HAND.format(table)) from None
    ends = (i for i in range(start, len(lines)) if lines[i].startswith("["))
    stop = next(ends, len(lines))
    kept = [line for line in lines[start:stop] if line.partition("=")[0].strip() not in keys]
    new = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
    result = "\n".join([*lines[:start], *new, *kept, *lines[stop:]]) + "\n"
    _check(text, result, table, keys)
    return result


def _check(before: str, after: str, table: str, keys: Mapping[str, Any]) -> None:
    """Check that only these keys have changed."""
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
