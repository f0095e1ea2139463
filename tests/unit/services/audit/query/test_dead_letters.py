"""Dead letters: what became of each, and which still want somebody."""

from typing import Any

import pytest
from sqlalchemy import Engine

from services.audit.query.dead_letters import count_open, list_dead_letters
from services.audit.record.write import store
from shared.log.events.commands import RetryOrdered
from shared.log.events.state import DeadLetter
from shared.log.stages import Stage
from shared.log.streams import DEAD_LETTERS, OPS
from shared.log.subjects import retry_command
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    issued,
    requested,
    stored,
)

REQUEST = enrollment(1).subject(Stage.REQUEST)


def letter(engine: Engine, subject: str, role: str = "validator", sequence: int = 1) -> None:
    found = DeadLetter(subject=subject, stream=STREAM, sequence=sequence, deliveries=13, role=role)
    place = f"dead.{role}.{STREAM}.{sequence}"
    store(engine, DEAD_LETTERS, [stored(sequence, place, found)])


def letters(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return list_dead_letters(connection, 50)


def open_ones(engine: Engine) -> int:
    with engine.connect() as connection:
        return count_open(connection)


@pytest.mark.parametrize(
    ("subject", "role", "wants"),
    [
        (REQUEST, "validator", True),
        (enrollment(1).subject(Stage.DECISION), "validator", True),
        (enrollment(1).subject(Stage.VERDICT), "issuer", True),
        (enrollment(1).subject(Stage.VERDICT), "validator", False),
        (enrollment(1).subject(Stage.OUTCOME), "validator", False),
        ("ops.revoke.local.4a.0.ordered", "issuer", True),
        ("what.nobody.knows", "issuer", False),
    ],
)
def test_a_letter_wants_somebody_where_something_can_be_done(
    engine: Engine, subject: str, role: str, *, wants: bool
) -> None:
    letter(engine, subject, role)
    (found,) = letters(engine)

    assert (found["open"], found["retried"]) == (wants, None)
    assert open_ones(engine) == wants


def test_one_that_was_driven_again_wants_nobody(engine: Engine) -> None:
    letter(engine, REQUEST)
    order = RetryOrdered(
        stream=STREAM, sequence=1, enrollment=enrollment(1).prefix(), attempt=1, operator="op"
    )
    store(engine, OPS, [stored(1, retry_command(enrollment(1).at(1)), order)])
    (found,) = letters(engine)

    assert (found["open"], found["retried"]) == (False, 1)
    assert open_ones(engine) == 0


def test_one_whose_device_asked_again_and_got_its_certificate_wants_nobody(engine: Engine) -> None:
    letter(engine, enrollment(1).at(3).subject(Stage.REQUEST))
    letter(engine, enrollment(2).subject(Stage.REQUEST), sequence=2)
    store(engine, STREAM, [requested(1, 1), approved(2, 1), issued(3, 1, "4a")])

    assert [found["open"] for found in letters(engine)] == [True, False]
    assert open_ones(engine) == 1
