"""A stored payload for people: whoever can write to the bus decides what is in it. Pure."""

import json
from typing import Any, Final

_DEPTH: Final = 20  # no event of ours comes near


def read_payload(payload: bytes) -> dict[str, Any] | None:
    """Return the JSON object; None for anything else, half a character, or too deep a nesting."""
    try:
        found = json.loads(payload)
        if not isinstance(found, dict) or _is_deep(found):
            return None
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)
