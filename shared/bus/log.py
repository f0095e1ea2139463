"""The event log for one role: signed appends, authenticated reads, reports of forged events."""

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
        """Sign an event for a subject and append it; return False if the subject already has one.

        The event continues the trace of the message `after`, which led to it.
        """
        message = sign(event, subject, self.signer)
        message.headers.update(carried(after.headers) if after is not None else {})
        return await append_first(self.bus, subject, message)


async def append_first(bus: Bus, subject: str, message: Message) -> bool:
    """Append a message; return False if the subject already has one."""
    try:
        await bus.append(subject, message)
    except AppendConflictError:
        return False
    return True


def read_authentic(kind: type[_E], stored: Stored, trusted: Trusted, about: str) -> _E | None:
    """Return a stored event of this kind; if it is forged, count and log it and return None.

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
    """Return a stage's event, or None if it is forged: `read_authentic` with `authenticate`."""
    try:
        return authenticate(stored, trusted, stage, request_sha256)
    except UnreadableEventError as error:
        report_forgery(stage, stored.subject, error)
        return None


def report_forgery(stage: str, subject: str, problem: object) -> None:
    """Count and log an event that is not authentic on its subject.

    `stage` is a label of `scepstream_security_events_total`, `problem` the reason in a sentence.
    """
    SECURITY_EVENTS.labels(stage).inc()
    _log.error("event_not_authentic", subject=subject, detail=str(problem))
