import pytest
from sqlalchemy import Engine

from services.audit.query.lookup import (
    EnrollmentLine,
    exact_lines,
    history,
    recent,
    suggested_lines,
)
from services.audit.record.write import store
from shared.log.enrollment import State
from shared.log.envelope import Stored
from shared.log.stages import Stage
from shared.x509.dn import write_dn
from tests.support.world import NANOSECONDS, NOW
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
    assert history(engine, "T1") == []


def test_a_story_is_every_event_of_the_enrollment_and_its_serial(log: Engine) -> None:
    expected = [
        ("CERTS", "CertificateRecorded"),
        (STREAM, "EnrollmentRequested"),
        (STREAM, "EnrollmentApproved"),
        (STREAM, "CertificateIssued"),
    ]

    for wanted in ("T1", SERIAL, "printer_1", enrollment(1).prefix()):
        assert [(e["stream"], e["type"]) for e in history(log, wanted)] == expected


def test_a_story_without_a_certificate_ends_with_its_verdict(log: Engine) -> None:
    assert [e["type"] for e in history(log, "T2")] == ["EnrollmentRequested", "EnrollmentRejected"]
    assert history(log, "unheard") == []


def test_a_story_is_never_that_of_a_name_which_only_begins_so(log: Engine) -> None:
    for wanted in ("printer", "50% Lab", "Lab", "T", SERIAL[:10], "PRINTER_1", " "):
        assert history(log, wanted) == []
    assert names(suggested_lines(log, "printer")) == ["T1"]
    assert suggested_lines(log, "printer", State.HELD) == []


@pytest.mark.parametrize("wanted", ["", " ", "\t"])
def test_no_name_stands_for_nobody(log: Engine, wanted: str) -> None:
    """Else a person would choose among devices that they did not mean."""
    assert exact_lines(log, wanted) == []
    assert suggested_lines(log, wanted) == []


def test_a_unit_that_poses_as_a_name_is_not_that_name(engine: Engine) -> None:
    posing = write_dn([("CN", "evil"), ("OU", "x, CN=printer-7"), ("OU", "printer-7")])
    several = write_dn([("CN", "printer-70"), ("O", "printer-7")])
    found = ((1, posing), (2, write_dn([("CN", "printer-7"), ("OU", "a, b")])), (3, several))
    for number, name in found:
        fill(engine, requested(2 * number, number), approved(2 * number + 1, number, name))

    for wanted in ("printer-7", r"CN=printer-7, OU=a\, b"):
        assert names(exact_lines(engine, wanted)) == ["T2"]
    assert names(exact_lines(engine, posing)) == ["T1"]
    assert exact_lines(engine, "printer-7", State.HELD) == []


def test_a_name_is_the_same_in_either_unicode_form(engine: Engine) -> None:
    fill(engine, requested(1, 1), approved(2, 1, "CN=Zoe\u0308"), issued(3, 1, "00c84a"))

    for wanted in ("Zo\xeb", "Zoe\u0308", "CN=Zo\xeb", "C8:4A", "0xc84a", "00C84A"):
        assert names(exact_lines(engine, wanted)) == ["T1"], wanted


def test_of_several_attempts_the_newest_is_told(engine: Engine) -> None:
    again = enrollment(1).at(1).subject(Stage.REQUEST)
    fill(
        engine, requested(1, 1), stored(2, again, event("EnrollmentRequested", transaction_id="T1"))
    )

    assert [e["subject"] for e in history(engine, "T1")] == [again]
