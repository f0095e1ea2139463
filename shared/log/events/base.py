"""What all events are made of."""

from typing import Final

import msgspec

NO_REQUEST: Final = "0" * 64


class EventPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What all events are: immutable, JSON objects, unknown fields ignored."""
