import pytest
from sqlalchemy import Engine

from services.audit.database import store
from services.audit.queries import EnrollmentLine, recent, story
from shared.enrollment import State
from shared.stored import Stored
from shared.subjects import Stage
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    event,
    issued,
    recorded,
    requested,
    stored,
)
from tests.unit.world import NANOSECONDS, NOW

SERIAL = "4a" * 16


def fill(engine: Engine, *found: Stored, stream: str = STREAM) -> None:
    store(engine, stream, list(found))


@pytest.fixture
def log(engine: Engine) -> Engine:
    """Three enrollments: issued, rejected, in flight."""
    rejected = event("EnrollmentRejected")
    fill(
        engine,
        requested(1, 1),
        requested(2, 2, profile="lab"),
        approved(3, 1, "CN=printer_1, O=50% Lab"),
        stored(4, enrollment(2, "lab").subject(Stage.VERDICT), rejected),
        issued(5, 1, SERIAL),
        requested(6, 3),
    )
    fill(engine, recorded(1, 1, SERIAL), recorded(2, 9, "5b" * 16), stream="CERTS")
    return engine


def names(lines: list[EnrollmentLine]) -> list[str]:
    return [line.transaction_id for line in lines]


def test_the_newest_come_first_each_with_its_state(log: Engine) -> None:
    lines = recent(log, 10)

    assert names(lines) == ["T3", "T2", "T1"]
    assert [line.state for line in lines] == [State.REQUESTED, State.REJECTED, State.ISSUED]
    assert lines[2] == EnrollmentLine(
        enrollment=enrollment(1).prefix(),
        profile="corp",
        transaction_id="T1",
        device="CN=printer_1, O=50% Lab",
        state=State.ISSUED,
        result="issued",
        serial=SERIAL,
        requested_at=(NOW + 1) * NANOSECONDS,
    )


def test_the_states_between(engine: Engine) -> None:
    failed = event("IssuanceFailed")
    outcome = stored(4, enrollment(2).subject(Stage.OUTCOME), failed)
    fill(engine, requested(1, 1), approved(2, 1), requested(3, 2), outcome)

    assert [line.state for line in recent(engine, 10)] == [State.FAILED, State.APPROVED]
    assert [line.result for line in recent(engine, 10)] == ["beyond_ceiling", "approved"]


def test_a_limit_keeps_the_newest(log: Engine) -> None:
    assert names(recent(log, 2)) == ["T3", "T2"]
    assert recent(log, 0) == []


def test_one_profiles_enrollments(log: Engine) -> None:
    assert names(recent(log, 10, profile="corp")) == ["T3", "T1"]
    assert recent(log, 10, profile="none") == []


def test_a_search_is_a_name_or_an_id_or_how_one_begins(log: Engine) -> None:
    searches = {
        "T1": ["T1"],
        "T12": [],
        "printer": ["T1"],
        "printer_": ["T1"],
        "printer%": [],
        "_rinter": [],
        "50%": ["T1"],
        SERIAL: ["T1"],
        SERIAL.upper(): ["T1"],
        SERIAL[:10]: ["T1"],
        "rinter_1": [],
        enrollment(3).prefix(): ["T3"],
        "' OR 1=1 --": [],
    }

    found = {search: names(recent(log, 10, search=search)) for search in searches}
    assert found == searches


def test_a_search_finds_the_same_in_either_database(log: Engine) -> None:
    """SQLite's LIKE takes no notice of case, PostgreSQL's does."""
    assert names(recent(log, 10, search="PRINTER")) == ["T1"]


def test_an_empty_log_has_nothing_recent(engine: Engine) -> None:
    assert recent(engine, 10) == []
    assert story(engine, "T1") == []


def test_a_story_is_every_event_of_the_enrollment_and_its_serial(log: Engine) -> None:
    expected = [
        ("CERTS", "CertificateRecorded"),
        (STREAM, "EnrollmentRequested"),
        (STREAM, "EnrollmentApproved"),
        (STREAM, "CertificateIssued"),
    ]

    for wanted in ("T1", SERIAL, "printer", enrollment(1).prefix()):
        assert [(e["stream"], e["type"]) for e in story(log, wanted)] == expected


def test_a_story_without_a_certificate_ends_with_its_verdict(log: Engine) -> None:
    assert [e["type"] for e in story(log, "T2")] == ["EnrollmentRequested", "EnrollmentRejected"]
    assert story(log, "unheard") == []


def test_of_several_attempts_the_newest_is_told(engine: Engine) -> None:
    again = enrollment(1).at(1).subject(Stage.REQUEST)
    fill(
        engine, requested(1, 1), stored(2, again, event("EnrollmentRequested", transaction_id="T1"))
    )

    assert [e["subject"] for e in story(engine, "T1")] == [again]
