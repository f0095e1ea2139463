"""Which attempts wait for a message that no consumer delivers, and what is ordered. Pure.

An attempt is overdue if it has waited for a while and somebody of the same shard and profile, who
began later, has the stage that it lacks. While a role is away nobody overtakes anybody.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from shared.log.enrollment import State
from shared.log.envelope import NANOSECONDS
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId

# What is missing in each state that waits for a service. A hold waits for an operator.
MISSING: Final[Mapping[State, Stage]] = {
    State.REQUESTED: Stage.VERDICT,
    State.DECIDED: Stage.VERDICT,
    State.APPROVED: Stage.OUTCOME,
}
# The states of those who have a stage, or were held by the role that writes it.
PASSED: Final[Mapping[Stage, tuple[State, ...]]] = {
    Stage.VERDICT: (State.HELD, State.APPROVED, State.REJECTED, State.ISSUED, State.FAILED),
    Stage.OUTCOME: (State.ISSUED, State.FAILED),
}


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds: between passes, before each order, and by how much one is overtaken.

    The last order gives the attempt up.
    """

    pause: float = 60.0
    delays: tuple[float, ...] = (120.0, 240.0, 480.0, 960.0)
    overtaken: float = 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An attempt in a state that waits for a service, since then (Unix ns)."""

    enrollment: EnrollmentId
    state: State
    since: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """An order to write: for which attempt, which stage it lacks, the order's number."""

    enrollment: EnrollmentId
    stage: Stage
    number: int
    give_up: bool


Queue = tuple[str, str, Stage]


def queue_of(enrollment: EnrollmentId, stage: Stage) -> Queue:
    """Return what attempts wait in: the shard and profile, and the stage to come."""
    return enrollment.shard, enrollment.profile, stage


def overtaken(
    waiting: Iterable[Waiting], newest: Mapping[Queue, int], patience: Patience
) -> list[Waiting]:
    """Return those whom somebody younger has overtaken.

    `newest` gives for a queue when the youngest of those who passed it was requested (Unix ns).
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

    `ordered` gives when each order of an attempt was recorded, by number. The time until the next
    one counts from there, or from when the attempt began to wait for its present stage.
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
