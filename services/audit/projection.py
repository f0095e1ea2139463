"""From a stored message to a row. Pure: the same log always gives the same rows."""

import json
from typing import Any

from shared.events import (
    CertificateIssued,
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    Event,
    Facts,
    HoldDecided,
    IssuanceFailed,
)
from shared.stored import TYPE, Stored, UnreadableEventError, decode

_OURS = "Scepstream-"


def row(stream: str, stored: Stored) -> dict[str, Any]:
    """The `events` row of a message; what is no event of ours is kept too."""
    profile = enrollment = None
    if stored.subject.startswith("enroll."):
        profile = stored.subject.split(".")[2]
        enrollment = stored.subject.rpartition(".")[0]
    headers = {k: v for k, v in sorted(stored.headers.items()) if k.startswith(_OURS)}
    return {
        "stream": stream,
        "sequence": stored.sequence,
        "subject": stored.subject,
        "type": _storable(stored.headers.get(TYPE, "unreadable")[:60]),
        "recorded_at": stored.time,
        "profile": profile,
        "enrollment": enrollment,
        "headers": json.dumps(headers),
        "payload": stored.payload,
        **_told(stored),
    }


def _told(stored: Stored) -> dict[str, str | None]:
    """What the event says of device, transaction, result and serial."""
    try:
        event: Event | None = decode(stored.payload, stored.headers)
    except UnreadableEventError:
        event = None
    told = {
        "transaction_id": getattr(event, "transaction_id", None),
        "device": _device(event),
        "result": _result(event),
        "serial": getattr(event, "serial", None),
    }
    return {name: _storable(value) for name, value in told.items()}


def _device(event: Event | None) -> str | None:
    """The subject of the CSR, where a validator told it."""
    match event:
        case EnrollmentHeld() | EnrollmentApproved():
            return event.facts.subject
        case EnrollmentRejected(facts=Facts() as facts):
            return facts.subject
        case _:
            return None


def _result(event: Event | None) -> str | None:
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


def _storable(text: str | None) -> str | None:
    """A device's string as any database takes it: PostgreSQL holds no NUL."""
    return None if text is None else text.replace("\0", "\\x00")
