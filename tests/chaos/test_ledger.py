"""The checks of the kill test must be able to fail: a true log passes, no forged one does."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from benchmarks.enrollments import key_pool
from benchmarks.figures import Answer
from shared.log.envelope import Stored
from shared.log.streams import CERTS
from tests.chaos.clients import REFUSED, authorities, new_load
from tests.chaos.ledger import ENROLL, Ledger, read_ledger, unlike_rows
from tests.support.system import running

Change = Callable[[list[Stored]], list[Stored]]


@dataclass(frozen=True)
class Told:
    """A real log, what clients were told, and where the system keeps its data."""

    data: Path
    ledger: Ledger
    right: tuple[Answer, ...]
    wrong: tuple[Answer, ...]

    def but(self, change: Change, stream: str = ENROLL) -> Ledger:
        """The log with a stream that is not as it was."""
        return Ledger.of(self.ledger.streams | {stream: change([*self.ledger.streams[stream]])})


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with running(tmp_path_factory.mktemp("ledger") / "data") as system:
        load = new_load(system, "not-the-challenge", key_pool(2))
        asyncio.run(load.run(clients=2, seed=0, until=0.0))
        trusted = authorities(system.url())
        right, wrong = load.answers(trusted, right=True), load.answers(trusted, right=False)
        yield Told(system.data, asyncio.run(read_ledger(system.data)), right, wrong)


def of_stage(stage: str, messages: list[Stored]) -> list[int]:
    return [i for i, each in enumerate(messages) if each.subject.endswith(f".{stage}")]


def without_last(stage: str) -> Change:
    return lambda m: [each for i, each in enumerate(m) if i != of_stage(stage, m)[-1]]


def copied_to_next_attempt(messages: list[Stored]) -> list[Stored]:
    """A whole enrollment once more, as attempt 1, with the other's certificate in it."""
    last = messages[of_stage("outcome", messages)[-1]]
    prefix = last.subject.rpartition(".")[0]
    story = [each for each in messages if each.subject.startswith(prefix)]
    again = f"{prefix.rpartition('.')[0]}.1"
    other = messages[of_stage("outcome", messages)[0]]
    story[-1] = replace(last, payload=other.payload)
    return messages + [replace(s, subject=s.subject.replace(prefix, again)) for s in story]


def with_exchanged_outcomes(messages: list[Stored]) -> list[Stored]:
    first, *_, last = of_stage("outcome", messages)
    messages[first], messages[last] = (
        replace(messages[first], payload=messages[last].payload),
        replace(messages[last], payload=messages[first].payload),
    )
    return messages


def with_changed_bytes(messages: list[Stored]) -> list[Stored]:
    at = of_stage("verdict", messages)[0]
    messages[at] = replace(messages[at], payload=messages[at].payload + b" ")
    return messages


def test_a_true_log_passes(told: Told) -> None:
    assert len(told.right) > 10
    assert all(not answer.failure for answer in told.right)
    assert told.wrong
    assert {answer.failure for answer in told.wrong} == {REFUSED}
    assert told.ledger.repeated_subjects() == []
    assert told.ledger.broken_attempts(told.data) == []
    assert told.ledger.second_certificates() == []
    assert told.ledger.wrong_answers(told.right) == []
    assert told.ledger.unlike_records() == []
    assert unlike_rows(told.ledger, told.data / "audit.db") == []


@pytest.mark.parametrize(
    "change",
    [
        without_last("outcome"),
        without_last("verdict"),
        without_last("request"),
        with_exchanged_outcomes,
        with_changed_bytes,
        lambda messages: messages + messages[-1:],
    ],
    ids=["no outcome", "no verdict", "no request", "exchanged", "unsigned", "twice"],
)
def test_a_broken_enrollment_is_found(told: Told, change: Change) -> None:
    assert told.but(change).broken_attempts(told.data)


def test_a_subject_with_two_messages_is_found(told: Told) -> None:
    assert told.but(lambda messages: messages + messages[:1]).repeated_subjects()


def test_a_second_certificate_is_found(told: Told) -> None:
    assert len(told.but(copied_to_next_attempt).second_certificates()) == 1


def test_an_answer_that_the_log_does_not_hold_is_found(told: Told) -> None:
    first, *others = told.right
    assert told.ledger.wrong_answers([replace(first, certificate=b"another"), *others])
    assert told.ledger.wrong_answers(others)
    assert told.but(without_last("outcome")).wrong_answers(told.right)


def test_certificates_and_records_that_do_not_match_are_found(told: Told) -> None:
    assert told.but(without_last("outcome")).unlike_records()
    assert told.but(lambda messages: messages[1:], CERTS).unlike_records()


@pytest.mark.parametrize("change", [lambda m: m[1:], lambda m: m[:-1], with_changed_bytes])
def test_a_database_that_differs_is_found(told: Told, change: Change) -> None:
    assert unlike_rows(told.but(change), told.data / "audit.db", 0.0)
