"""Gate 8: places within a day, and who takes them."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.validator.challenges.windows import Counted, Entries, Full, count
from shared.log.events.state import CountedEnrollment
from shared.log.subjects import EnrollmentId
from tests.support.signed_challenges import enrollment
from tests.support.world import NOW

DAY: Final = 86400


def entry(name: str, at: int = NOW, attempt: int = 0) -> CountedEnrollment:
    return CountedEnrollment(enrollment=enrollment(name, attempt).prefix(), at=at)


def window(*names: str, at: int = NOW) -> Entries:
    return tuple(entry(name, at) for name in names)


def test_the_first_enrollment_has_a_place() -> None:
    assert count((), enrollment("a"), NOW, 3) == Counted((entry("a"),), changed=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 100])
def test_as_many_have_a_place_as_the_profile_allows(limit: int) -> None:
    taken: Entries = ()
    for index in range(limit):
        found = count(taken, enrollment(str(index)), NOW + index, limit)
        assert isinstance(found, Counted)
        assert found.changed
        assert found.entries == (*taken, entry(str(index), NOW + index))
        taken = found.entries

    assert count(taken, enrollment("one more"), NOW + limit, limit) == Full(taken)


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4, 5])
def test_three_have_a_place(taken: int) -> None:
    found = count(window(*map(str, range(taken))), enrollment("x"), NOW, 3)

    assert isinstance(found, Counted) == (taken < 3)


@pytest.mark.parametrize(
    ("age", "free"), [(0, False), (1, False), (DAY - 1, False), (DAY, True), (DAY + 1, True)]
)
def test_a_place_is_taken_for_a_day_to_the_second(age: int, free: bool) -> None:  # noqa: FBT001 - a column of the table
    found = count(window("a", at=NOW - age), enrollment("b"), NOW, 1)

    assert found == (
        Counted((entry("b"),), changed=True) if free else Full(window("a", at=NOW - age))
    )


def test_places_become_free_one_by_one() -> None:
    """The window slides: it does not end at midnight."""
    taken: Entries = (entry("a", NOW), entry("b", NOW + 100), entry("c", NOW + 200))

    for name, at, expected in (
        ("d", NOW + DAY - 1, None),
        ("e", NOW + DAY, ("b", "c", "e")),
        ("f", NOW + DAY + 99, None),
        ("g", NOW + DAY + 100, ("c", "e", "g")),
    ):
        found = count(taken, enrollment(name), at, 3)

        assert isinstance(found, Full) == (expected is None)
        if isinstance(found, Counted):
            assert expected is not None
            taken = found.entries
            assert [each.enrollment for each in taken] == [
                enrollment(each).prefix() for each in expected
            ]


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("later", [0, 1, 3600, DAY - 1, DAY, 10 * DAY])
def test_an_enrollment_counts_once_however_often_it_comes(limit: int, later: int) -> None:
    """With the time of the first delivery: it is not prolonged."""
    taken = window("a", "b", "c")[:limit]

    for each in ("a", "b", "c")[:limit]:
        found = count(taken, enrollment(each), NOW + later, limit)
        assert found == Counted(taken, changed=False)


@pytest.mark.parametrize(("first", "attempt"), [(0, 1), (1, 2), (0, 7), (1, 0)])
def test_another_attempt_takes_the_place_of_the_one_before(first: int, attempt: int) -> None:
    taken = (entry("a", NOW, first), entry("b", NOW + 1), entry("c", NOW + 2))

    found = count(taken, enrollment("a", attempt), NOW + 3, 3)

    assert found == Counted((*taken[1:], entry("a", NOW + 3, attempt)), changed=True)


def test_another_attempt_keeps_its_place_where_the_limit_was_lowered() -> None:
    taken = window("a", "b", "c")

    assert isinstance(count(taken, enrollment("a", 1), NOW, 1), Counted)
    assert count(taken, enrollment("d"), NOW, 1) == Full(taken)


def test_another_attempt_keeps_no_place_that_has_ended() -> None:
    """The limit was lowered from three; of two places within the day both are taken."""
    taken = (entry("a", NOW - DAY), entry("b"), entry("c"))

    assert count(taken, enrollment("a", 1), NOW, 2) == Full(window("b", "c"))


@pytest.mark.parametrize(
    "other",
    [
        enrollment("x"),
        enrollment("a", csr="x"),
        enrollment("a", profile="x"),
    ],
)
def test_what_is_not_the_same_enrollment_takes_a_place_of_its_own(other: EnrollmentId) -> None:
    taken = window("a")

    assert count(taken, other, NOW, 1) == Full(taken)
    assert isinstance(count(taken, other, NOW, 2), Counted)


# Enrollments that came to nothing


@pytest.mark.parametrize("failed", ["a", "b", "c"])
def test_an_enrollment_that_failed_frees_its_place(failed: str) -> None:
    taken = window("a", "b", "c")

    found = count(taken, enrollment("d"), NOW, 3, [enrollment(failed).prefix()])

    left = tuple(each for each in taken if each.enrollment != enrollment(failed).prefix())
    assert found == Counted((*left, entry("d")), changed=True)


def test_several_that_failed_free_a_place_each() -> None:
    failed = [enrollment(each).prefix() for each in ("a", "c")]

    found = count(window("a", "b", "c"), enrollment("d"), NOW, 3, failed)

    assert found == Counted((entry("b"), entry("d")), changed=True)
    assert count(window("a", "b", "c"), enrollment("d"), NOW, 1, failed) == Full((entry("b"),))


@pytest.mark.parametrize(
    "failed", [enrollment("a", 1), enrollment("x"), enrollment("a", csr="x"), enrollment("d")]
)
def test_an_attempt_that_is_not_counted_frees_nothing(failed: EnrollmentId) -> None:
    taken = window("a", "b", "c")

    assert count(taken, enrollment("d"), NOW, 3, [failed.prefix()]) == Full(taken)


def test_a_failed_enrollment_that_comes_again_counts_again() -> None:
    """Its place may have gone to others."""
    gone = enrollment("a").prefix()
    found = count(window("a", "b", "c"), enrollment("d"), NOW, 3, [gone])
    assert isinstance(found, Counted)

    again = count(found.entries, enrollment("a", 1), NOW + 1, 3, [gone])

    assert again == Full(found.entries)


# Times that are not in order


@pytest.mark.parametrize("ahead", [1, DAY - 1, DAY, DAY + 1])
def test_an_enrollment_judged_late_counts_those_that_overtook_it(ahead: int) -> None:
    taken = window("a", at=NOW + ahead)

    assert count(taken, enrollment("b"), NOW, 1) == Full(taken)
    assert count(taken, enrollment("b"), NOW, 2) == Counted((*taken, entry("b")), changed=True)


def test_places_are_free_by_time_and_not_by_order() -> None:
    taken = (entry("a", NOW), entry("b", NOW - DAY), entry("c", NOW - 1), entry("d", NOW - 2 * DAY))

    assert count(taken, enrollment("e"), NOW, 2) == Full((entry("a", NOW), entry("c", NOW - 1)))


# Against a model

NAMES: Final = st.sampled_from("abcdef")
STEPS: Final = st.lists(
    st.tuples(
        NAMES,
        st.integers(0, 2),
        st.sampled_from([0, 1, 3600, DAY // 2, DAY - 1, DAY, DAY + 1]),
        st.booleans(),
    ),
    max_size=24,
)


def ask(
    taken: Entries, who: EnrollmentId, now: int, limit: int, failed: set[str]
) -> Counted | Full:
    """As a validator asks: what has failed is looked up only where there is no place."""
    found = count(taken, who, now, limit)
    return count(taken, who, now, limit, failed) if isinstance(found, Full) else found


@given(STEPS, st.integers(1, 4))
def test_places_are_given_as_a_list_of_all_that_ever_happened_would(
    steps: list[tuple[str, int, int, bool]], limit: int
) -> None:
    """The model forgets nothing: the last place of each enrollment, and what has failed."""
    taken: Entries = ()
    last: dict[str, tuple[str, int]] = {}
    failed: set[str] = set()
    now = NOW
    for name, attempt, passing, fails in steps:
        now += passing
        who = enrollment(name, attempt)
        again = who.prefix() in {each.enrollment for each in taken}
        living = {
            other
            for other, (place, at) in last.items()
            if now - at < DAY and place not in failed and other != name
        }

        found = ask(taken, who, now, limit, failed)

        assert isinstance(found, Counted) == (again or len(living) < limit)
        if isinstance(found, Full):
            assert {each.enrollment for each in found.entries} == {last[o][0] for o in living}
            continue
        assert found.changed is not again
        if found.changed:
            last[name] = (who.prefix(), now)
            failed.discard(who.prefix())
        taken = found.entries
        if fails:
            failed.add(who.prefix())


@given(
    st.lists(st.tuples(NAMES, st.integers(0, 2), st.integers(-2 * DAY, 2 * DAY)), max_size=24),
    st.integers(1, 4),
)
def test_no_order_of_times_gives_more_places_than_there_are(
    steps: list[tuple[str, int, int]], limit: int
) -> None:
    taken: Entries = ()
    for name, attempt, offset in steps:
        found = count(taken, enrollment(name, attempt), NOW + offset, limit)
        if isinstance(found, Full):
            assert len(found.entries) >= limit
            continue
        taken = found.entries
        enrollments = [each.enrollment.rpartition(".")[0] for each in taken]
        assert len(set(enrollments)) == len(enrollments) <= limit
        assert enrollment(name, attempt).prefix() in {each.enrollment for each in taken}
