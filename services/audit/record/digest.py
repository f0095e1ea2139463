"""Digests of events, and the rolling digest of a stream, which covers all up to one. Pure."""

import hashlib
from typing import Final

import msgspec

from shared.log.envelope import Stored

BEGIN: Final = ""
_OURS: Final = "Scepstream-"


def own_headers(stored: Stored) -> str:
    """Return the headers that are part of an event, as a JSON object in canonical form."""
    ours = {k: v for k, v in sorted(stored.headers.items()) if k.startswith(_OURS)}
    return msgspec.json.encode(ours).decode()


def event_digest(stored: Stored, headers: str) -> bytes:
    """Return the SHA-256 of an event and its place, given its own headers as JSON.

    What is hashed is length-prefixed, and therefore unambiguous.
    """
    state = hashlib.sha256(stored.sequence.to_bytes(8, "big"))
    state.update(stored.time.to_bytes(8, "big"))
    for part in (stored.subject.encode(), headers.encode(), stored.payload):
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def advance(digest: str, event: bytes) -> str:
    """Return a stream's digest (hex) after one more event, given that event's digest."""
    return hashlib.sha256(bytes.fromhex(digest) + event).hexdigest()
