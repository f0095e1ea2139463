"""An event as others take it: a JSON object, or a CloudEvent (CloudEvents 1.0). Pure."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from services.audit.proof.window import profile_of
from services.audit.record.event_row import DecodedMessage
from shared.log.envelope import NANOSECONDS, TYPE, VERSION

_SOURCE: Final = "/scepstream"


class Form(StrEnum):
    """How lines are written."""

    JSONL = "jsonl"
    CLOUDEVENTS = "cloudevents"


def lines(form: Form, stream: str, found: DecodedMessage) -> dict[str, Any]:
    """The object of one line; the event's own fields stand under `data`."""
    return _cloudevent(stream, found) if form is Form.CLOUDEVENTS else _plain(stream, found)


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
    """Id and source together name the event: its stream and its place there."""
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
    """The payload as stored; null where it is no event of ours."""
    return json.loads(found.stored.payload) if found.event is not None else None


def _time(nanoseconds: int) -> str:
    """RFC 3339, to the nanosecond."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
