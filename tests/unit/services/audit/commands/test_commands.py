"""What operators ordered, as rows and lists: who, what, about what, and what came of it."""

from typing import Any, Final

import pytest
from sqlalchemy import Engine

from services.audit.query.commands import CommandFilter, list_commands
from services.audit.query.filters import BadCursorError
from services.audit.query.history import history_of
from services.audit.record.write import store
from services.audit.store.commands import Command, Result
from shared.log.events.base import EventPayload
from shared.log.events.commands import (
    ApiTokenCreated,
    ApiTokenRevoked,
    CommandAnswered,
    RetryOrdered,
)
from shared.log.stages import Stage
from shared.log.streams import OPS
from shared.log.subjects import (
    anchor_reload_command,
    api_token_created,
    api_token_revoked,
    one_time_created,
    ra_reload_command,
    reload_answer,
    retry_command,
    revocation_answer,
    revocation_command,
)
from tests.support import golden
from tests.support.world import NANOSECONDS, NOW
from tests.unit.services.audit.stories import (
    STREAM,
    approved,
    enrollment,
    event,
    issued,
    requested,
    stored,
)

REVOKE: Final = revocation_command("local", golden.SERIAL, 1)
TRUST: Final = anchor_reload_command("corp", "0123456789abcdef")
RA: Final = ra_reload_command("corp", "0123456789abcdef")
ORDER: Final = "fedcba9876543210"


def answer(*, done: bool, detail: str = "") -> CommandAnswered:
    return CommandAnswered(request_sha256="00" * 32, done=done, detail=detail)


def ops(engine: Engine, *found: tuple[str, EventPayload], first: int = 1) -> None:
    """Store these in the operators' stream, one batch each."""
    for i, (subject, each) in enumerate(found):
        store(engine, OPS, [stored(first + i, subject, each)])


def listed(engine: Engine, **wanted: Any) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return list(list_commands(connection, CommandFilter(**wanted)).rows)


def only(engine: Engine) -> dict[str, Any]:
    (found,) = listed(engine)
    return found


@pytest.mark.parametrize(
    ("subject", "kind", "told"),
    [
        (REVOKE, "RevocationOrdered", ("revoke", None, f"local {golden.SERIAL}", "keyCompromise")),
        (TRUST, "ReloadOrdered", ("reload-trust", "corp", None, None)),
        (RA, "ReloadOrdered", ("reload-ra", "corp", None, None)),
        (
            one_time_created("corp", "abc"),
            "ChallengeCreated",
            ("create-challenge", "corp", "abc", "printer-1"),
        ),
        (
            one_time_created("corp", "abc").replace("created", "cancelled"),
            "ChallengeCancelled",
            ("cancel-challenge", "corp", "abc", None),
        ),
        (
            api_token_created("helpdesk", ORDER),
            "ApiTokenCreated",
            ("create-token", None, "helpdesk", "operator"),
        ),
        (
            api_token_revoked("helpdesk", ORDER),
            "ApiTokenRevoked",
            ("revoke-token", None, "helpdesk", None),
        ),
    ],
)
def test_an_order_tells_who_what_and_about_what(
    engine: Engine, subject: str, kind: str, told: tuple[str | None, ...]
) -> None:
    ops(engine, (subject, event(kind)))
    row = only(engine)

    assert tuple(row[name] for name in ("kind", "profile", "about", "note")) == told
    assert row["operator"] == getattr(golden.EVENTS[kind, 1][1], "operator", "")
    assert row["ordered_at"] == (NOW + 1) * NANOSECONDS


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        (RA.replace(".all.ordered", ".all.answered"), "ReloadOrdered"),
        (TRUST, "RevocationOrdered"),
        (api_token_created("x", ORDER), "ApiTokenRevoked"),
        ("ops.token.x.created", "ApiTokenCreated"),
        ("ops.checkpoint.a.1.audit.signed", "ReloadOrdered"),
        (f"{enrollment(1).prefix()}.decision", "ReloadOrdered"),
    ],
)
def test_an_order_that_stands_where_its_kind_does_not_is_none(
    engine: Engine, subject: str, kind: str
) -> None:
    ops(engine, (subject, event(kind)))

    assert listed(engine) == []


@pytest.mark.parametrize("stage", [Stage.REQUEST, Stage.HOLD, Stage.VERDICT, Stage.OUTCOME])
def test_a_decision_at_another_stage_is_none(engine: Engine, stage: Stage) -> None:
    store(engine, STREAM, [stored(1, enrollment(1).subject(stage), event("HoldDecided"))])

    assert listed(engine) == []


@pytest.mark.parametrize(
    ("answers", "result", "said"),
    [
        ([], Result.WAITING, None),
        ([answer(done=True, detail="on CRL 7")], Result.DONE, "on CRL 7"),
        ([answer(done=False, detail="no such serial")], Result.REFUSED, "no such serial"),
    ],
)
def test_a_revocation_came_to_what_the_issuer_says(
    engine: Engine, answers: list[CommandAnswered], result: Result, said: str | None
) -> None:
    told = [(revocation_answer(REVOKE), each) for each in answers]
    ops(engine, (REVOKE, event("RevocationOrdered")), *told)
    row = only(engine)

    assert (row["result"], row["detail"]) == (result, said)


@pytest.mark.parametrize("order", [TRUST, RA])
def test_a_reload_is_refused_by_as_many_replicas_as_say_no(engine: Engine, order: str) -> None:
    ops(engine, (order, event("ReloadOrdered", replicas=("one", "two", "three"))))
    ops(engine, (reload_answer(order, "two"), answer(done=False, detail="no PEM")), first=2)
    first = only(engine)
    ops(engine, (reload_answer(order, "one"), answer(done=True, detail="reloaded")), first=3)
    ops(engine, (reload_answer(order, "three"), answer(done=True, detail="reloaded")), first=4)
    last = only(engine)

    assert (first["result"], first["answered"], first["refused"]) == (Result.REFUSED, 1, 1)
    assert (last["result"], last["answered"], last["refused"]) == (Result.REFUSED, 3, 1)
    assert last["detail"] == "no PEM"


@pytest.mark.parametrize(
    ("replicas", "results"),
    [
        ((), [Result.WAITING, Result.DONE, Result.DONE]),
        (("one",), [Result.WAITING, Result.DONE, Result.DONE]),
        (("one", "two"), [Result.WAITING, Result.WAITING, Result.DONE]),
        (("one", "two", "silent"), [Result.WAITING, Result.WAITING, Result.WAITING]),
    ],
)
def test_a_reload_waits_for_every_replica_that_ran(
    engine: Engine, replicas: tuple[str, ...], results: list[Result]
) -> None:
    """Of an order from before they were named, one is enough."""
    found = []
    ops(engine, (TRUST, event("ReloadOrdered", replicas=replicas)))
    found.append(only(engine)["result"])
    for i, name in enumerate(("one", "two")):
        ops(engine, (reload_answer(TRUST, name), answer(done=True)), first=2 + i)
        found.append(only(engine)["result"])

    assert found == results


def test_answers_to_nothing_are_no_orders(engine: Engine) -> None:
    ops(engine, (revocation_answer(REVOKE), answer(done=True)))
    ops(engine, ("ops.token.a.b.0.answered", answer(done=True)), first=2)

    assert listed(engine) == []


@pytest.mark.parametrize(
    ("approve", "ends", "result"),
    [
        (True, [], Result.WAITING),
        (False, [], Result.WAITING),
        (True, ["EnrollmentRejected"], Result.REFUSED),
        (False, ["EnrollmentRejected"], Result.DONE),
        (True, ["EnrollmentApproved"], Result.WAITING),
        (True, ["EnrollmentApproved", "CertificateIssued"], Result.DONE),
        (True, ["EnrollmentApproved", "IssuanceFailed"], Result.REFUSED),
    ],
)
def test_a_decision_came_to_what_became_of_the_enrollment(
    engine: Engine, *, approve: bool, ends: list[str], result: Result
) -> None:
    held = enrollment(1)
    stages = {
        "EnrollmentHeld": Stage.HOLD,
        "EnrollmentRejected": Stage.VERDICT,
        "EnrollmentApproved": Stage.VERDICT,
        "CertificateIssued": Stage.OUTCOME,
        "IssuanceFailed": Stage.OUTCOME,
    }
    decided = event("HoldDecided", approved=approve)
    told = [
        requested(1, 1),
        stored(2, held.subject(Stage.HOLD), event("EnrollmentHeld")),
        stored(3, held.subject(Stage.DECISION), decided),
        *(stored(4 + i, held.subject(stages[end]), event(end)) for i, end in enumerate(ends)),
    ]
    store(engine, STREAM, told)
    row = only(engine)

    assert (row["kind"], row["result"]) == ("approve" if approve else "deny", result)
    assert (row["enrollment"], row["profile"]) == (held.prefix(), "corp")
    assert (row["device"], row["note"]) == ("CN=Prüfgerät 7, O=Lab", "seen on site")


def retried(number: int) -> tuple[str, RetryOrdered]:
    """An order to make the enrollment again, as its second attempt."""
    found = enrollment(number)
    order = RetryOrdered(
        stream=STREAM, sequence=7, enrollment=found.prefix(), attempt=1, operator="op"
    )
    return retry_command(found.at(1)), order


def test_a_retry_is_about_the_attempt_that_it_makes(engine: Engine) -> None:
    ops(engine, retried(1))
    row = only(engine)

    assert (row["kind"], row["enrollment"]) == ("retry", enrollment(1).at(1).prefix())
    assert (row["about"], row["result"]) == (f"{STREAM} 7", Result.WAITING)


def test_a_revocation_driven_again_is_about_no_enrollment(engine: Engine) -> None:
    subject, order = retried(1)
    without = RetryOrdered(stream=order.stream, sequence=7, enrollment="", attempt=1, operator="op")
    ops(engine, (subject, without))

    assert (only(engine)["enrollment"], only(engine)["result"]) == (None, Result.DONE)


def test_orders_are_listed_newest_first_a_page_at_a_time(engine: Engine) -> None:
    made = [
        (
            api_token_created(f"t{i}", ORDER),
            ApiTokenCreated(name=f"t{i}", level="viewer", operator="ann"),
        )
        for i in range(5)
    ]
    ops(engine, *made)
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        with engine.connect() as connection:
            page = list_commands(connection, CommandFilter(cursor=cursor, limit=2))
        seen += [row["about"] for row in page.rows]
        cursor = page.next_cursor

    assert (seen, cursor) == (["t4", "t3", "t2", "t1", "t0"], None)
    with engine.connect() as connection, pytest.raises(BadCursorError):
        list_commands(connection, CommandFilter(cursor="what nobody gave"))


def test_orders_are_found_by_operator_and_kind(engine: Engine) -> None:
    ops(
        engine,
        (
            api_token_created("a", ORDER),
            ApiTokenCreated(name="a", level="viewer", operator="ann"),
        ),
        (api_token_revoked("a", ORDER), ApiTokenRevoked(name="a", operator="bob")),
        (TRUST, event("ReloadOrdered", operator="bob")),
    )

    def found(**wanted: Any) -> list[str]:
        return [row["kind"] for row in listed(engine, **wanted)]

    assert found(operator="bob") == ["reload-trust", "revoke-token"]
    assert found(kind=Command.REVOKE_TOKEN) == ["revoke-token"]
    assert found(operator="bob", kind="reload-trust") == ["reload-trust"]
    assert found(operator="nobody") == []


def test_the_attempts_of_a_request_know_of_each_other(engine: Engine) -> None:
    again = enrollment(1).at(1)
    store(
        engine,
        STREAM,
        [
            requested(1, 1),
            approved(2, 1),
            issued(3, 1, "ab"),
            requested(4, 2),
            stored(5, again.subject(Stage.REQUEST), event("EnrollmentRequested")),
        ],
    )
    with engine.connect() as connection:
        told = {
            each.prefix(): story.attempts
            for each in (enrollment(1), again, enrollment(2))
            if (story := history_of(connection, each.prefix())) is not None
        }

    both = [enrollment(1).prefix(), again.prefix()]
    assert told == {both[0]: both, both[1]: both, enrollment(2).prefix(): [enrollment(2).prefix()]}
