"""Choice of the attempts whose message no consumer delivers, and of the commands for them. Pure.

An attempt is overdue if it has waited for some time and a younger attempt of the same shard and
profile already has the stage that it lacks. While a role is down, no attempt overtakes another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.log.enrollment import State
from shared.log.envelope import NANOSECONDS
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId

# The stage that each state waits for. A held attempt waits for an operator, not for a service.
MISSING: Final[Mapping[State, Stage]] = {
    State.REQUESTED: Stage.VERDICT,
    State.DECIDED: Stage.VERDICT,
    State.APPROVED: Stage.OUTCOME,
    State.CONFIRMING: Stage.CONFIRMATION,
}
# The states of attempts that have a stage, or were held by the role that writes it.
PASSED: Final[Mapping[Stage, tuple[State, ...]]] = {
    Stage.VERDICT: (
        State.HELD,
        State.APPROVED,
        State.CONFIRMING,
        State.REJECTED,
        State.ISSUED,
        State.FAILED,
    ),
    Stage.OUTCOME: (State.CONFIRMING, State.ISSUED, State.FAILED),
    Stage.CONFIRMATION: (State.ISSUED, State.FAILED),
}


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds; an attempt gets as many commands as there are `delays`.

    `pause` is between passes. Each of `delays` precedes one command; the last command gives the
    attempt up. `overtaken` is how much later than an attempt began to wait a younger one must have
    been requested.
    """

    pause: float = 60.0
    delays: tuple[float, ...] = (120.0, 240.0, 480.0, 960.0)
    overtaken: float = 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An attempt in a state that waits for a service, and since when it does (Unix ns)."""

    enrollment: EnrollmentId
    state: State
    since: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """A command to write: for which attempt, the stage it lacks, the command's number.

    `give_up` ends the attempt.
    """

    enrollment: EnrollmentId
    stage: Stage
    number: int
    give_up: bool


Queue = tuple[str, str, Stage]


def queue_of(enrollment: EnrollmentId, stage: Stage) -> Queue:
    """Return the queue that an attempt waits in: the shard, the profile and the missing stage."""
    return enrollment.shard, enrollment.profile, stage


def overtaken(
    waiting: Iterable[Waiting], newest: Mapping[Queue, int], patience: Patience
) -> list[Waiting]:
    """Return the attempts that a younger one has overtaken.

    `newest` gives by queue when the youngest attempt that passed it was requested (Unix ns).
    """
    margin = int(patience.overtaken * NANOSECONDS)
    return [
        each
        for each in waiting
        if newest.get(queue_of(each.enrollment, MISSING[each.state]), 0) >= each.since + margin
    ]


def choose(
    waiting: Iterable[Waiting],
    ordered: Mapping[EnrollmentId, Mapping[int, int]],
    now: int,
    patience: Patience,
) -> list[Overdue]:
    """Return the commands that are due now (Unix ns).

    `ordered` gives when each command of an attempt was recorded, by number. The delay of the next
    one starts there, or when the attempt began to wait for its present stage.
    """
    found: list[Overdue] = []
    for each in waiting:
        before = ordered.get(each.enrollment, {})
        number = max(before, default=-1) + 1
        if number >= len(patience.delays):
            continue
        begin = max(each.since, before.get(number - 1, 0))
        if now - begin >= patience.delays[number] * NANOSECONDS:
            give_up = number == len(patience.delays) - 1
            found.append(Overdue(each.enrollment, MISSING[each.state], number, give_up))
    return found
