"""The event log as one role writes it, and what is done about events that are not authentic."""

from dataclasses import dataclass
from typing import TypeVar

import structlog

from shared.bus.core import AppendConflictError, Bus
from shared.log.envelope import (
    EventSigner,
    Message,
    Stored,
    Trusted,
    UnreadableEventError,
    authenticate,
    authenticate_as,
    sign,
)
from shared.log.events.base import EventPayload, SignedEvent
from shared.log.stages import Stage
from shared.observe.metrics import SECURITY_EVENTS
from shared.observe.tracing import carried

_log = structlog.get_logger()
_E = TypeVar("_E", bound=SignedEvent)


@dataclass(frozen=True, slots=True)
class Log:
    """The log, and the key of the role that appends to it."""

    bus: Bus
    signer: EventSigner

    async def append(self, subject: str, event: SignedEvent, after: Stored | None = None) -> bool:
        """Sign an event for a subject and append it; return whether it was the first there.

        What comes of it is in the trace of the message that it comes `after`.
        """
        message = sign(event, subject, self.signer)
        message.headers.update(carried(after.headers) if after is not None else {})
        return await append_first(self.bus, subject, message)


async def append_first(bus: Bus, subject: str, message: Message) -> bool:
    """Append a message; return False where the subject has one already."""
    try:
        await bus.append(subject, message)
    except AppendConflictError:
        return False
    return True


def read_authentic(kind: type[_E], stored: Stored, trusted: Trusted, about: str) -> _E | None:
    """Return a stored event of this kind; count and log it, and return None, where it is forged.

    `about` is a label of `scepstream_security_events_total`.
    """
    try:
        return authenticate_as(kind, stored, trusted)
    except UnreadableEventError as error:
        report_forgery(about, stored.subject, error)
        return None


def read_stage(
    stored: Stored, trusted: Trusted, stage: Stage, request_sha256: str | None = None
) -> EventPayload | None:
    """Return the event of a stage like `read_authentic`; see `authenticate`."""
    try:
        return authenticate(stored, trusted, stage, request_sha256)
    except UnreadableEventError as error:
        report_forgery(stage, stored.subject, error)
        return None


def report_forgery(stage: str, subject: str, problem: object) -> None:
    """Count and log an event that is not what its subject says.

    `stage` is a label of `scepstream_security_events_total`, `problem` the sentence that says why.
    """
    SECURITY_EVENTS.labels(stage).inc()
    _log.error("event_not_authentic", subject=subject, detail=str(problem))
