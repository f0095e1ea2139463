"""Base classes of all events."""

from typing import TYPE_CHECKING, Final

import msgspec

NO_REQUEST: Final = "0" * 64


class EventPayload(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events: an immutable JSON object whose unknown fields are ignored."""


class SignedEvent(EventPayload, frozen=True, kw_only=True):
    """An event that its writer signs for one subject and one stored request.

    `request_sha256` is the hex digest of that request's payload, or `NO_REQUEST` if the event is
    not about a request. Each kind declares the field itself, because a payload's fields are written
    in the order of their declaration, which must not change.
    """

    if TYPE_CHECKING:
        request_sha256: str
