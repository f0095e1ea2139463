"""The states of an enrollment's attempt, and the reply to a repeated request. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.log.events.base import EventPayload
from shared.log.events.enrollment import CertificateConfirmed, CertificateIssued, Terminal


class State(StrEnum):
    """States of an attempt."""

    REQUESTED = "requested"
    HELD = "held"
    DECIDED = "decided"
    APPROVED = "approved"
    CONFIRMING = "confirming"
    REJECTED = "rejected"
    ISSUED = "issued"
    FAILED = "failed"


TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.REQUESTED, "EnrollmentHeld"): State.HELD,
    (State.HELD, "HoldDecided"): State.DECIDED,
    (State.HELD, "EnrollmentApproved"): State.APPROVED,  # its key got a certificate meanwhile
    (State.HELD, "EnrollmentRejected"): State.REJECTED,  # the request was poison
    (State.DECIDED, "EnrollmentApproved"): State.APPROVED,
    (State.DECIDED, "EnrollmentRejected"): State.REJECTED,
    (State.REQUESTED, "EnrollmentApproved"): State.APPROVED,
    (State.REQUESTED, "EnrollmentRejected"): State.REJECTED,
    (State.APPROVED, "CertificateOrdered"): State.APPROVED,  # at an external CA
    (State.APPROVED, "CertificateIssued"): State.ISSUED,
    (State.APPROVED, "CertificateIssued.withheld"): State.CONFIRMING,
    (State.APPROVED, "IssuanceFailed"): State.FAILED,
    (State.CONFIRMING, "CertificateConfirmed"): State.ISSUED,
    (State.CONFIRMING, "ConfirmationFailed"): State.FAILED,
}
TERMINAL: Final = frozenset({State.REJECTED, State.ISSUED, State.FAILED})
# Seconds before a failed enrollment may be attempted again. They grow, so that a device in a loop
# does not fill the log.
RETRY_DELAYS: Final = (30, 120, 600, 3600)


def evolve(state: State, event: EventPayload) -> State:
    """Return the state after an event; raise ValueError if the event cannot follow `state`."""
    withheld = isinstance(event, CertificateIssued) and event.withheld
    try:
        return TRANSITIONS[state, type(event).__name__ + (".withheld" if withheld else "")]
    except KeyError:
        raise ValueError(f"{type(event).__name__} cannot follow {state}") from None


def confirms(event: EventPayload | None, issued: CertificateIssued) -> bool:
    """Return whether an authentic event of the stage confirmation gives a certificate out."""
    return isinstance(event, CertificateConfirmed) and event.serial == issued.serial


@dataclass(frozen=True, slots=True)
class Wait:
    """The attempt is in progress: wait for its terminal event."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The stored terminal event is the answer."""

    event: Terminal


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """The request becomes attempt number `attempt`."""

    attempt: int


def on_repeat(
    attempt: int, terminal: Terminal | None, age: float, now: float
) -> Wait | Answer | NextAttempt:
    """Return how to answer a request whose `attempt` is already in the log.

    `terminal` is that attempt's authenticated terminal event, None while it is in progress; `age`
    is how many seconds ago it was stored, `now` the time in Unix seconds. A certificate is the
    answer until it expires: the same request never yields a second one before that.
    """
    if terminal is None:
        return Wait()
    if isinstance(terminal, CertificateIssued):
        return Answer(terminal) if now < terminal.not_after else NextAttempt(attempt + 1)
    delay = RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)]
    return Answer(terminal) if age < delay else NextAttempt(attempt + 1)
