"""Events for export: as JSON objects, or as CloudEvents (CloudEvents 1.0). Pure."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from services.audit.proof.window import profile_of
from services.audit.record.event_row import DecodedMessage, RecordedEvent
from shared.log.envelope import NANOSECONDS, TYPE, VERSION

_SOURCE: Final = "/scepstream"


class Form(StrEnum):
    """The format of exported lines."""

    JSONL = "jsonl"
    CLOUDEVENTS = "cloudevents"


def lines(form: Form, stream: str, found: DecodedMessage) -> dict[str, Any]:
    """Return the object of one line; the event's own fields are under `data`."""
    return _cloudevent(stream, found) if form is Form.CLOUDEVENTS else _plain(stream, found)


def digest_line(stream: str, found: RecordedEvent) -> dict[str, Any]:
    """Return the object of an event of which the database has only the digest."""
    return {
        "stream": stream,
        "sequence": found.sequence,
        "time": _time(found.recorded_at),
        "type": found.type,
        "subject": found.subject,
        "sha256": found.digest.hex(),
    }


def _plain(stream: str, found: DecodedMessage) -> dict[str, Any]:
    stored = found.stored
    return {
        "stream": stream,
        "sequence": stored.sequence,
        "time": _time(stored.time),
        "type": stored.headers.get(TYPE, ""),
        "subject": stored.subject,
        "profile": profile_of(found),
        "headers": json.loads(found.headers),
        "data": _data(found),
    }


def _cloudevent(stream: str, found: DecodedMessage) -> dict[str, Any]:
    """Return a CloudEvent; id and source together identify it: its sequence and its stream."""
    stored = found.stored
    kind = stored.headers.get(TYPE, "unreadable")
    return {
        "specversion": "1.0",
        "id": str(stored.sequence),
        "source": f"{_SOURCE}/{stream}",
        "type": f"scepstream.{kind}.v{stored.headers.get(VERSION, '0')}",
        "subject": stored.subject,
        "time": _time(stored.time),
        "datacontenttype": "application/json",
        "data": _data(found),
    }


def _data(found: DecodedMessage) -> Any:
    """Return the payload as stored; null if it is not a valid event."""
    return json.loads(found.stored.payload) if found.event is not None else None


def _time(nanoseconds: int) -> str:
    """Return a time in RFC 3339 format, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
