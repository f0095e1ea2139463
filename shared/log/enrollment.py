"""The life of an enrollment as a table, and what a repeated request gets. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shared.log.events.base import EventPayload
from shared.log.events.enrollment import CertificateIssued, Terminal


class State(StrEnum):
    """Where an attempt stands."""

    REQUESTED = "requested"
    HELD = "held"
    DECIDED = "decided"
    APPROVED = "approved"
    REJECTED = "rejected"
    ISSUED = "issued"
    FAILED = "failed"


TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.REQUESTED, "EnrollmentHeld"): State.HELD,
    (State.HELD, "HoldDecided"): State.DECIDED,
    (State.HELD, "EnrollmentApproved"): State.APPROVED,  # its key got a certificate meanwhile
    (State.HELD, "EnrollmentRejected"): State.REJECTED,  # it killed its worker
    (State.DECIDED, "EnrollmentApproved"): State.APPROVED,
    (State.DECIDED, "EnrollmentRejected"): State.REJECTED,
    (State.REQUESTED, "EnrollmentApproved"): State.APPROVED,
    (State.REQUESTED, "EnrollmentRejected"): State.REJECTED,
    (State.APPROVED, "CertificateIssued"): State.ISSUED,
    (State.APPROVED, "IssuanceFailed"): State.FAILED,
}
TERMINAL: Final = frozenset({State.REJECTED, State.ISSUED, State.FAILED})
# A failed enrollment may be attempted again, at growing intervals: a device in a loop must not
# fill the log.
RETRY_DELAYS: Final = (30, 120, 600, 3600)


def evolve(state: State, event: EventPayload) -> State:
    """The state after an event; ValueError where the table has no such step."""
    try:
        return TRANSITIONS[state, type(event).__name__]
    except KeyError:
        raise ValueError(f"{type(event).__name__} cannot follow {state}") from None


@dataclass(frozen=True, slots=True)
class Wait:
    """The attempt is in flight: wait for its terminal event."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The stored terminal event is the answer."""

    event: Terminal


@dataclass(frozen=True, slots=True)
class TryAnew:
    """The request becomes attempt number `attempt`."""

    attempt: int


def on_repeat(
    attempt: int, terminal: Terminal | None, age: float, now: float
) -> Wait | Answer | TryAnew:
    """What a request gets whose `attempt` is on the log already.

    `terminal` is that attempt's authenticated end, None while in flight; `age` is how many
    seconds ago it was stored, `now` the time in Unix seconds. A certificate is the answer for as
    long as it lives: the same request never yields a second one beside it.
    """
    if terminal is None:
        return Wait()
    if isinstance(terminal, CertificateIssued):
        return Answer(terminal) if now < terminal.not_after else TryAnew(attempt + 1)
    delay = RETRY_DELAYS[min(attempt, len(RETRY_DELAYS) - 1)]
    return Answer(terminal) if age < delay else TryAnew(attempt + 1)
