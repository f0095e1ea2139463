"""From a stored message to a row. Pure: the same log always gives the same rows."""

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

# PostgreSQL's indexes take 2704 bytes of a row: a text of this length, and a key beside it.
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
    """A stored message, the event in it if it is one, and its own headers as JSON."""

    stored: Stored
    event: EventPayload | None
    headers: str

    @classmethod
    def of(cls, stored: Stored) -> "DecodedMessage":
        """Read it once for all that is made of it."""
        try:
            event = decode(stored.payload, stored.headers)
        except UnreadableEventError:
            event = None
        if event is not None and not _fits(msgspec.structs.asdict(event)):
            event = None
        return cls(stored, event, own_headers(stored))


def _fits(value: object) -> bool:
    """Whether columns can hold what it says: nobody's event may stop all that come after it."""
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
    """A number in its column's width, a name of the log's own in its column's length."""
    if type(value) is int:
        return abs(value) < _WIDTHS.get(name, _WIDEST)
    if isinstance(value, str) and name in _LENGTHS:
        return len(storable(value)) <= _LENGTHS[name]
    return True


def is_ours(subject: str) -> bool:
    """Whether services may have written there: rows have keys out of subjects."""
    return len(subject) <= _LONGEST_SUBJECT


def row(stream: str, found: DecodedMessage) -> dict[str, Any]:
    """The `events` row of a message; what is no event of ours is kept too."""
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
        **_told(found.event),
    }


def _told(event: EventPayload | None) -> dict[str, str | None]:
    """What the event says of device, transaction, result and serial."""
    told = {
        "transaction_id": getattr(event, "transaction_id", None),
        "device": _device(event),
        "result": _result(event),
        "serial": getattr(event, "serial", None),
    }
    return {name: storable(value) for name, value in told.items()}


def _device(event: EventPayload | None) -> str | None:
    """The subject of the CSR, where a validator told it."""
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
    """Somebody's string as any database takes it, in an index too.

    PostgreSQL holds no NUL; what is long ends in a digest of the whole instead.
    """
    if text is None:
        return None
    held = text.replace("\0", "\\x00")
    if len(held) <= _LONGEST:
        return held
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{held[: _LONGEST - _DIGEST]}{digest}"
