"""What all events are made of."""

from typing import TYPE_CHECKING, Final

import msgspec

NO_REQUEST: Final = "0" * 64


class EventPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What all events are: immutable, JSON objects, unknown fields ignored."""


class SignedEvent(EventPayload, frozen=True, kw_only=True):
    """An event that its writer signs, for one subject and for one stored request.

    `request_sha256` is the digest of that request's payload, in hex; `NO_REQUEST` in an event that
    is about none. Each kind declares the field itself: a payload's fields stand in the order of
    their declaration, and what is on a log is not to change.
    """

    if TYPE_CHECKING:
        request_sha256: str
