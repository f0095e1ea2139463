"""Counts of what Intune decides: certificates that wait, and a day's enrollments by result."""

from typing import Final

from sqlalchemy import Engine, insert

from services.audit.query.intune import count_waiting, results_of_a_day
from services.audit.store.tables import counters, enrollments

HOUR: Final = 3600
NOW: Final = 1_800_000_000 // HOUR * HOUR + 1800
THIS: Final = NOW // HOUR * HOUR


def counted(hour: int, result: str, challenge: str = "intune") -> dict[str, object]:
    return {
        "hour": hour, "profile": "windows", "challenge": challenge, "result": result, "count": 2,
    }  # fmt: skip


def test_a_day_is_the_hour_that_has_begun_and_those_before_it(engine: Engine) -> None:
    rows = [
        counted(THIS, "success"),
        counted(THIS - 23 * HOUR, "success"),
        counted(THIS - 24 * HOUR, "success"),
        counted(THIS, "not_confirmed"),
        counted(THIS, "success", "signed"),
    ]
    with engine.begin() as connection:
        connection.execute(insert(counters), rows)
        found = results_of_a_day(connection, NOW)

    assert found == {"windows": {"success": 4, "not_confirmed": 2}}


def test_only_withheld_certificates_wait(engine: Engine) -> None:
    rows = [
        {"enrollment": f"e{number}", "profile": "windows", "state": state, "requested_at": 1}
        for number, state in enumerate(("confirming", "confirming", "issued", "requested"))
    ]
    with engine.begin() as connection:
        connection.execute(insert(enrollments), rows)
        found = count_waiting(connection, ["windows", "other"])

    assert found == {"windows": 2, "other": 0}
