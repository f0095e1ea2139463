"""Which attempts get an order to resume, and which number it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.commands.overdue import (
    MISSING,
    PASSED,
    Overdue,
    Patience,
    Queue,
    Waiting,
    choose,
    overtaken,
)
from shared.log.enrollment import TERMINAL, State
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId
from tests.support.world import NANOSECONDS

PATIENCE = Patience()
ATTEMPT = EnrollmentId("0", "corp", "transaction", "csr", 0)
VERDICTS: Queue = ("0", "corp", Stage.VERDICT)
OUTCOMES: Queue = ("0", "corp", Stage.OUTCOME)


def ns(seconds: float) -> int:
    return int(seconds * NANOSECONDS)


def waiting(state: State = State.REQUESTED, since: float = 1000) -> Waiting:
    return Waiting(ATTEMPT, state, ns(since))


def commands(now: float, *before: float, state: State = State.REQUESTED) -> list[Overdue]:
    ordered = {ATTEMPT: dict(enumerate(map(ns, before)))}
    return choose([waiting(state)], ordered, ns(now), PATIENCE)


@pytest.mark.parametrize(
    ("state", "queue", "younger", "expected"),
    [
        (State.REQUESTED, VERDICTS, 1060, True),
        (State.REQUESTED, VERDICTS, 1059, False),
        (State.DECIDED, VERDICTS, 1060, True),
        (State.APPROVED, OUTCOMES, 1060, True),
        (State.APPROVED, VERDICTS, 2000, False),
        (State.REQUESTED, ("1", "corp", Stage.VERDICT), 2000, False),
        (State.REQUESTED, ("0", "other", Stage.VERDICT), 2000, False),
    ],
)
def test_who_is_overtaken_waits_for_what_somebody_younger_of_its_queue_has(
    state: State, queue: Queue, younger: float, *, expected: bool
) -> None:
    one = waiting(state)

    assert overtaken([one], {queue: ns(younger)}, PATIENCE) == ([one] if expected else [])


def test_nobody_is_overtaken_where_everybody_waits() -> None:
    assert overtaken([waiting(since=1000 + i) for i in range(100)], {}, PATIENCE) == []


@pytest.mark.parametrize(
    ("now", "before", "number"),
    [
        (1119, (), None),
        (1120, (), 0),
        (9000, (), 0),
        (1359, (1120,), None),
        (1360, (1120,), 1),
        (1839, (1120, 1360), None),
        (1840, (1120, 1360), 2),
        (2799, (1120, 1360, 1840), None),
        (2800, (1120, 1360, 1840), 3),
        (99_999, (1120, 1360, 1840, 2800), None),
    ],
)
def test_orders_come_at_growing_distances_and_end(
    now: float, before: tuple[float, ...], number: int | None
) -> None:
    found = commands(now, *before)

    assert [each.number for each in found] == ([] if number is None else [number])
    assert [each.give_up for each in found] == [number == 3][: len(found)]


def test_an_attempt_that_came_a_step_further_waits_anew_before_its_next_order() -> None:
    """Its request was resumed at 900; the approval that followed was lost as well."""
    assert commands(1239, 900, state=State.APPROVED) == []
    (found,) = commands(1240, 900, state=State.APPROVED)
    assert (found.number, found.stage) == (1, Stage.OUTCOME)


def test_only_states_that_wait_for_a_service_are_swept() -> None:
    assert not set(MISSING) & (TERMINAL | {State.HELD})
    for stage, states in PASSED.items():
        assert all(MISSING.get(state) is not stage for state in states)


@given(st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=60))
def test_an_attempt_never_gets_more_than_four_orders(steps: list[int]) -> None:
    """However the passes fall, each number comes once, in turn, the last one to give up."""
    now, ordered = ns(1000), dict[int, int]()
    for step in steps:
        now += ns(step)
        for each in choose([waiting()], {ATTEMPT: ordered}, now, PATIENCE):
            assert each.number == len(ordered)
            assert each.give_up is (each.number == 3)
            ordered[each.number] = now

    assert len(ordered) <= 4
