"""The rolling digest of a stream: one value for all events up to a sequence. Pure."""

import hashlib
import json
from typing import Final

from shared.log.envelope import Stored

BEGIN: Final = ""
_OURS: Final = "Scepstream-"


def own_headers(stored: Stored) -> str:
    """Return the headers that are part of an event, as a JSON object in canonical form."""
    return json.dumps({k: v for k, v in sorted(stored.headers.items()) if k.startswith(_OURS)})


def advance(digest: str, stored: Stored, headers: str) -> str:
    """Return the digest (hex) after one more event, whose own headers are given as JSON.

    What is hashed is length-prefixed, and therefore unambiguous.
    """
    state = hashlib.sha256(bytes.fromhex(digest))
    state.update(stored.sequence.to_bytes(8, "big"))
    state.update(stored.time.to_bytes(8, "big"))
    for part in (stored.subject.encode(), headers.encode(), stored.payload):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.hexdigest()
