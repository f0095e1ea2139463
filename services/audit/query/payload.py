"""Decoding of stored payloads for display. Anyone who can write to the bus controls them. Pure."""

import json
from typing import Any, Final

_DEPTH: Final = 20  # far deeper than any event of ours


def read_payload(payload: bytes) -> dict[str, Any] | None:
    """Return the JSON object; None for other data, lone surrogates, or excessive nesting."""
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
