"""Appending for a role, and reporting what is not authentic."""

import structlog

from shared.bus.log import Log, append_first, report_forgery
from shared.log.envelope import Message, authenticate_as
from shared.log.events.commands import ChallengeCancelled
from shared.log.streams import OPS
from shared.log.subjects import one_time_cancelled
from shared.observe.tracing import TRACEPARENT
from tests.support.world import OPERATOR, TRUSTED_OPERATORS, append, counted, memory_bus

SUBJECT = one_time_cancelled("corp", "digest", 0)


async def test_the_first_event_on_a_subject_stays_and_is_signed_for_it() -> None:
    bus = memory_bus()
    log = Log(bus, OPERATOR)
    mine, late = (ChallengeCancelled(profile="corp", operator=name) for name in ("ada", "bob"))

    assert await log.append(SUBJECT, mine)
    assert not await log.append(SUBJECT, late)
    stored = await bus.get_last(OPS, SUBJECT)
    assert stored is not None
    assert authenticate_as(ChallengeCancelled, stored, TRUSTED_OPERATORS) == mine


async def test_what_follows_from_a_message_is_in_its_trace() -> None:
    bus = memory_bus()
    headers = {TRACEPARENT: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    before = await append(bus, one_time_cancelled("corp", "digest", 1), Message(b"{}", headers))
    event = ChallengeCancelled(profile="corp", operator="ada")

    assert await Log(bus, OPERATOR).append(SUBJECT, event, after=before)
    stored = await bus.get_last(OPS, SUBJECT)
    assert stored is not None
    assert stored.headers[TRACEPARENT] == headers[TRACEPARENT]


async def test_a_message_without_a_signature_is_appended_once_too() -> None:
    bus = memory_bus()

    assert await append_first(bus, SUBJECT, Message(b"1", {}))
    assert not await append_first(bus, SUBJECT, Message(b"2", {}))


def test_a_forgery_is_counted_and_logged_with_its_subject() -> None:
    before = counted("security_events", stage="command")
    with structlog.testing.capture_logs() as lines:
        report_forgery("command", SUBJECT, ValueError("signed by an unknown key"))

    assert counted("security_events", stage="command") == before + 1
    assert [(line["event"], line["subject"], line["detail"]) for line in lines] == [
        ("event_not_authentic", SUBJECT, "signed by an unknown key")
    ]
