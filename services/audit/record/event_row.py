"""Conversion of stored messages to `events` rows. Pure: the same log gives the same rows."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, overload

import msgspec

from services.audit.record.digest import event_digest, own_headers
from shared.log.envelope import TYPE, Stored, UnreadableEventError, decode
from shared.log.events.base import EventPayload
from shared.log.events.certificates import OrderChanged, OrphanNoted
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    Facts,
    HoldDecided,
    IssuanceFailed,
)
from shared.log.stages import Stage

# A row of a PostgreSQL index has at most 2704 bytes: a text of this length and a key fit in.
_LONGEST: Final = 500
_DIGEST: Final = 32
_TYPE: Final = 60
_LONGEST_SUBJECT: Final = 300  # ours are shorter: an enrollment's has 180 at most
_KEY_RECORD: Final = re.compile(r"key\.[^.]+\.issued\.")
_LENGTHS: Final = {"stream": 60, "role": 16}
_RESULTS: Final[Mapping[type, str]] = {
    EnrollmentHeld: "held",
    EnrollmentApproved: "approved",
    CertificateIssued: "issued",
    CertificateConfirmed: "confirmed",
}
_WIDEST: Final = 2**63
_NARROW: Final = ("message_type", "key_bits", "fail_info", "deliveries", "attempt")
_WIDTHS: Final = dict.fromkeys(_NARROW, 2**31)


@dataclass(frozen=True, slots=True)
class DecodedMessage:
    """A stored message, the event in it (None if it is not one), own headers as JSON, digest."""

    stored: Stored
    event: EventPayload | None
    headers: str
    digest: bytes

    @classmethod
    def of(cls, stored: Stored) -> "DecodedMessage":
        """Decode a message, once for everything that is made of it.

        An event with a value that its column cannot hold counts as none.
        """
        try:
            event = decode(stored.payload, stored.headers)
        except UnreadableEventError:
            event = None
        if event is not None and not _fits(event):
            event = None
        headers = own_headers(stored)
        return cls(stored, event, headers, event_digest(stored, headers))


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as the database has it; `message` is None if only its digest is kept."""

    sequence: int
    subject: str
    type: str
    recorded_at: int
    digest: bytes
    message: Stored | None


def _fits(value: msgspec.Struct) -> bool:
    """Return whether columns can hold the values: no event may block all that come after it."""
    for name, check in _checks(type(value)):
        inner = getattr(value, name)
        if inner is not None and not check(inner):
            return False
    return True


@cache
def _checks(struct: type[msgspec.Struct]) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    """Return the fields of a struct whose values might not fit, each with its check."""
    found = ((each.name, _check(each.name, each.type)) for each in msgspec.structs.fields(struct))
    return tuple((name, check) for name, check in found if check is not None)


def _check(name: str, declared: Any) -> Callable[[Any], bool] | None:
    """Return the check of a field of this type, None if every value fits."""
    for kind in _members(declared):
        if kind is int:
            width = _WIDTHS.get(name, _WIDEST)
            return lambda value: abs(value) < width
        if kind is str and name in _LENGTHS:
            longest = _LENGTHS[name]
            return lambda value: len(storable(value)) <= longest
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _fits if _checks(kind) else None
        if get_origin(kind) in (tuple, list) and (inner := _check(name, get_args(kind)[0])):
            return partial(_all_fit, inner)
        if get_origin(kind) is dict and (inner := _check(name, get_args(kind)[1])):
            return partial(_all_values_fit, inner)
    return None


def _members(declared: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type."""
    is_union = get_origin(declared) in (Union, UnionType)
    return get_args(declared) if is_union else (declared,)


def _all_fit(check: Callable[[Any], bool], values: Iterable[Any]) -> bool:
    return all(map(check, values))


def _all_values_fit(check: Callable[[Any], bool], values: Mapping[str, Any]) -> bool:
    return all(map(check, values.values()))


def is_ours(subject: str) -> bool:
    """Return whether a service may have written to this subject; rows take their keys from it."""
    return len(subject) <= _LONGEST_SUBJECT


def is_kept(subject: str) -> bool:
    """Return whether the database keeps the whole message on a subject, or only its digest.

    Requests and verdicts are most of the log, and whoever can write to the bus decides how large
    they are. What would have to be repaired in a log restored from an older backup is kept:
    outcomes, records, revocations, marks and commands. The record under a key repeats the one under
    a serial number.
    """
    if subject.startswith("enroll."):
        return subject.endswith((f".{Stage.OUTCOME}", f".{Stage.CONFIRMATION}"))
    return not _KEY_RECORD.match(subject)


def row(stream: str, found: DecodedMessage) -> dict[str, Any]:
    """Return the `events` row of a message; one without a valid event is stored too."""
    stored = found.stored
    kept = is_kept(stored.subject)
    profile = enrollment = None
    if stored.subject.startswith("enroll.") and is_ours(stored.subject):
        profile = stored.subject.split(".")[2]
        enrollment = stored.subject.rpartition(".")[0]
    elif isinstance(found.event, OrderChanged | OrphanNoted):
        enrollment = storable(found.event.enrollment)
    return {
        "stream": stream,
        "sequence": stored.sequence,
        "subject": stored.subject,
        "type": (storable(stored.headers.get(TYPE)) or "unreadable")[:_TYPE],
        "recorded_at": stored.time,
        "profile": profile,
        "enrollment": enrollment,
        "digest": found.digest,
        "headers": found.headers if kept else None,
        "payload": stored.payload if kept else None,
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
        case EnrollmentRejected() | IssuanceFailed() | ConfirmationFailed():
            return event.reason.value
        case HoldDecided():
            return "approved" if event.approved else "denied"
        case _:
            return _RESULTS.get(type(event))


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
