"""Retries at the operators' desk: attempts are numbered from 1, as on the page."""

from typing import Any

import pytest

from services.audit.commands.context import ConflictError, OperatorContext
from services.audit.commands.retry import retry
from shared.log.catalog import DEAD_LETTER
from shared.log.envelope import Message, Stored, encode
from shared.log.events.commands import RevocationReason, WithdrawalOrdered
from shared.log.events.enrollment import EnrollmentRejected
from shared.log.events.state import DeadLetter
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.log.subjects import EnrollmentId, revocation_command, withdrawal_command
from tests.fakes.memory_bus import MemoryBus
from tests.support.operator_api import settings
from tests.support.world import (
    PROFILE,
    REQUEST_SHA256,
    TRUSTED_ISSUERS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append_signed,
    memory_bus,
)

FIRST = EnrollmentId("0", PROFILE, "t" * 8, "c" * 8, 0)
STREAM = enroll_stream("0")


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


class Executed(OperatorContext):
    """As if a gateway made the next attempt at once."""

    async def until(self, stream: str, subject: str, seconds: float) -> Stored | None:
        await self.bus.append(subject, Message(b"", {}))
        return await super().until(stream, subject, seconds)


@pytest.fixture
def context(bus: MemoryBus) -> OperatorContext:
    unused: Any = None
    return Executed(bus, settings(), unused, TRUSTED_VALIDATORS, TRUSTED_ISSUERS, "ann")


async def given_up(bus: MemoryBus) -> None:
    """A validator gave up the first attempt's request."""
    request = FIRST.subject(Stage.REQUEST)
    await bus.append(request, Message(b"", {}))
    letter = DeadLetter(subject=request, stream=STREAM, sequence=1, deliveries=13, role="validator")
    place = DEAD_LETTER.subject(role="validator", stream=STREAM, sequence=1)
    await bus.append(place, encode(letter))


async def rejected(bus: MemoryBus, reason: Reason) -> None:
    verdict = EnrollmentRejected(
        request_sha256=REQUEST_SHA256, reason=reason, fail_info=FAIL_INFO[reason], detail=""
    )
    await append_signed(bus, FIRST.subject(Stage.VERDICT), verdict, VALIDATOR)


async def test_an_attempt_in_progress_is_named_as_on_the_page(
    bus: MemoryBus, context: OperatorContext
) -> None:
    await given_up(bus)

    with pytest.raises(ConflictError, match=r"^not retried: attempt 1 is in progress$"):
        await retry(context, STREAM, 1)


async def test_an_attempt_that_was_refused_is_named_as_on_the_page(
    bus: MemoryBus, context: OperatorContext
) -> None:
    await given_up(bus)
    await rejected(bus, Reason.CHALLENGE_WRONG)

    with pytest.raises(
        ConflictError, match=r"attempt 1 was refused .challenge_wrong.; only an attempt"
    ):
        await retry(context, STREAM, 1)


async def test_the_attempt_that_a_retry_makes_is_named_as_on_the_page(
    bus: MemoryBus, context: OperatorContext
) -> None:
    await given_up(bus)
    await rejected(bus, Reason.POISON)

    assert await retry(context, STREAM, 1) == "retried as attempt 2"


async def test_a_forged_outcome_does_not_hide_the_verdict(
    bus: MemoryBus, context: OperatorContext
) -> None:
    await given_up(bus)
    await rejected(bus, Reason.POISON)
    await bus.append(FIRST.subject(Stage.OUTCOME), Message(b"planted", {}))

    assert await retry(context, STREAM, 1) == "retried as attempt 2"


async def test_a_letter_about_a_forged_revocation_is_a_conflict(
    bus: MemoryBus, context: OperatorContext
) -> None:
    subject = revocation_command("local", "4a", 0)
    await bus.append(subject, Message(b"planted", {}))
    letter = DeadLetter(subject=subject, stream=OPS, sequence=1, deliveries=13, role="issuer")
    await bus.append(DEAD_LETTER.subject(role="issuer", stream=OPS, sequence=1), encode(letter))

    with pytest.raises(ConflictError, match="no operator signed this command"):
        await retry(context, OPS, 1)


async def test_a_letter_about_a_withdrawal_is_retried_as_a_revocation(
    bus: MemoryBus, context: OperatorContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, ...]] = []

    async def revoke(_: OperatorContext, *about: str) -> str:
        heard.append(about)
        return "revoked"

    monkeypatch.setattr("services.audit.commands.retry.revoke_certificate", revoke)
    subject = withdrawal_command("local", "4a", 0)
    command = WithdrawalOrdered(
        issuer="local",
        serial="4a",
        attempt=0,
        reason=RevocationReason.CESSATION_OF_OPERATION,
        operator="contoso",
        cause="unconfirmed",
    )
    await append_signed(bus, subject, command, VALIDATOR)
    letter = DeadLetter(subject=subject, stream=OPS, sequence=1, deliveries=13, role="issuer")
    await bus.append(DEAD_LETTER.subject(role="issuer", stream=OPS, sequence=1), encode(letter))

    assert await retry(context, OPS, 1) == "revoked"
    assert heard == [("local", "4a", RevocationReason.CESSATION_OF_OPERATION)]
