"""Conversion of stored messages to `events` rows. Pure: the same log gives the same rows."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, overload

import msgspec

from services.audit.record.digest import own_headers
from shared.log.envelope import TYPE, Stored, UnreadableEventError, decode
from shared.log.events.base import EventPayload
from shared.log.events.enrollment import (
    CertificateIssued,
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    Facts,
    HoldDecided,
    IssuanceFailed,
)

# A row of a PostgreSQL index has at most 2704 bytes: a text of this length and a key fit in.
_LONGEST: Final = 500
_DIGEST: Final = 32
_TYPE: Final = 60
_LONGEST_SUBJECT: Final = 300  # ours are shorter: an enrollment's has 180 at most
_LENGTHS: Final = {"stream": 60, "role": 16}
_WIDEST: Final = 2**63
_NARROW: Final = ("message_type", "key_bits", "fail_info", "deliveries", "attempt")
_WIDTHS: Final = dict.fromkeys(_NARROW, 2**31)


@dataclass(frozen=True, slots=True)
class DecodedMessage:
    """A stored message, the event in it (None if it is not one), its own headers as JSON."""

    stored: Stored
    event: EventPayload | None
    headers: str

    @classmethod
    def of(cls, stored: Stored) -> "DecodedMessage":
        """Decode a message, once for everything that is made of it.

        An event with a value that its column cannot hold counts as none.
        """
        try:
            event = decode(stored.payload, stored.headers)
        except UnreadableEventError:
            event = None
        if event is not None and not _fits(msgspec.structs.asdict(event)):
            event = None
        return cls(stored, event, own_headers(stored))


def _fits(value: object) -> bool:
    """Return whether columns can hold the values: no event may block all that come after it."""
    match value:
        case dict():
            return all(_fits_in(name, inner) and _fits(inner) for name, inner in value.items())
        case msgspec.Struct():
            return _fits(msgspec.structs.asdict(value))
        case tuple() | list():
            return all(map(_fits, value))
        case _:
            return True


def _fits_in(name: str, value: object) -> bool:
    """Return whether a number fits its column's width, or a log name its column's length."""
    if type(value) is int:
        return abs(value) < _WIDTHS.get(name, _WIDEST)
    if isinstance(value, str) and name in _LENGTHS:
        return len(storable(value)) <= _LENGTHS[name]
    return True


def is_ours(subject: str) -> bool:
    """Return whether a service may have written to this subject; rows take their keys from it."""
    return len(subject) <= _LONGEST_SUBJECT


def row(stream: str, found: DecodedMessage) -> dict[str, Any]:
    """Return the `events` row of a message; one without a valid event is stored too."""
    stored = found.stored
    profile = enrollment = None
    if stored.subject.startswith("enroll.") and is_ours(stored.subject):
        profile = stored.subject.split(".")[2]
        enrollment = stored.subject.rpartition(".")[0]
    return {
        "stream": stream,
        "sequence": stored.sequence,
        "subject": stored.subject,
        "type": (storable(stored.headers.get(TYPE)) or "unreadable")[:_TYPE],
        "recorded_at": stored.time,
        "profile": profile,
        "enrollment": enrollment,
        "headers": found.headers,
        "payload": stored.payload,
        **_event_columns(found.event),
    }


def _event_columns(event: EventPayload | None) -> dict[str, str | None]:
    """Return the device, transaction, result and serial number that the event states."""
    columns = {
        "transaction_id": getattr(event, "transaction_id", None),
        "device": _device(event),
        "result": _result(event),
        "serial": getattr(event, "serial", None),
    }
    return {name: storable(value) for name, value in columns.items()}


def _device(event: EventPayload | None) -> str | None:
    """Return the CSR's subject, if a validator recorded it."""
    match event:
        case EnrollmentHeld() | EnrollmentApproved():
            return event.facts.subject
        case EnrollmentRejected(facts=Facts() as facts):
            return facts.subject
        case _:
            return None


def _result(event: EventPayload | None) -> str | None:
    match event:
        case EnrollmentRejected() | IssuanceFailed():
            return event.reason.value
        case EnrollmentHeld():
            return "held"
        case HoldDecided():
            return "approved" if event.approved else "denied"
        case EnrollmentApproved():
            return "approved"
        case CertificateIssued():
            return "issued"
        case _:
            return None


@overload
def storable(text: str) -> str: ...
@overload
def storable(text: None) -> None: ...
def storable(text: str | None) -> str | None:
    """Return a text in a form that every database can store and index.

    PostgreSQL cannot store NUL. A long text is cut, and ends in a digest of the whole.
    """
    if text is None:
        return None
    held = text.replace("\0", "\\x00")
    if len(held) <= _LONGEST:
        return held
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{held[: _LONGEST - _DIGEST]}{digest}"
