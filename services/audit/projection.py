"""From a stored message to a row. Pure: the same log always gives the same rows."""

import json
from typing import Any

from shared.events import (
    TYPE,
    CertificateIssued,
    EnrollmentApproved,
    EnrollmentRejected,
    EnrollmentRequested,
    Event,
    IssuanceFailed,
    Stored,
    UnreadableEventError,
    decode,
)

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
    told: dict[str, str | None] = dict.fromkeys(("transaction_id", "device", "result", "serial"))
    match event:
        case EnrollmentRequested():
            told["transaction_id"] = event.transaction_id
        case EnrollmentApproved():
            told |= {"device": event.facts.subject, "result": "approved"}
        case EnrollmentRejected():
            device = event.facts.subject if event.facts else None
            told |= {"device": device, "result": event.reason.value}
        case CertificateIssued():
            told |= {"result": "issued", "serial": event.serial}
        case IssuanceFailed():
            told["result"] = event.reason.value
        case _:
            pass
    return {name: _storable(value) for name, value in told.items()}


def _storable(text: str | None) -> str | None:
    """A device's string as any database takes it: PostgreSQL holds no NUL."""
    return None if text is None else text.replace("\0", "\\x00")
