"""What nobody of ours signed, on a subject that a command reads: an answer, not an outage."""

from typing import Any

import pytest

from services.audit.commands.context import CommandError, ConflictError, OperatorContext
from services.audit.commands.decide import decide
from services.audit.commands.reload_anchors import _answer as reload_answer_of
from services.audit.commands.revoke import ForgedAnswerError, _answer
from shared.log.envelope import Message
from shared.log.stages import Stage
from shared.log.subjects import (
    EnrollmentId,
    anchor_reload_command,
    reload_answer,
    revocation_answer,
    revocation_command,
)
from tests.fakes.memory_bus import MemoryBus
from tests.support.operator_api import settings
from tests.support.world import PROFILE, TRUSTED_ISSUERS, TRUSTED_VALIDATORS, memory_bus

ENROLLMENT = EnrollmentId("0", PROFILE, "t" * 8, "c" * 8, 0)
PLANTED = Message(b"planted", {})


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


@pytest.fixture
def context(bus: MemoryBus) -> OperatorContext:
    unused: Any = None
    return OperatorContext(bus, settings(), unused, TRUSTED_VALIDATORS, TRUSTED_ISSUERS, "ann")


async def test_a_forged_hold_is_none(bus: MemoryBus, context: OperatorContext) -> None:
    await bus.append(ENROLLMENT.subject(Stage.REQUEST), PLANTED)
    await bus.append(ENROLLMENT.subject(Stage.HOLD), PLANTED)

    with pytest.raises(ConflictError, match="is not held"):
        await decide(context, ENROLLMENT.prefix(), "", approved=True)


async def test_a_forged_answer_to_a_revocation_is_said_to_be_one(
    bus: MemoryBus, context: OperatorContext
) -> None:
    command = revocation_command("local", "4a", 0)
    await bus.append(revocation_answer(command), PLANTED)

    with pytest.raises(ForgedAnswerError, match="not signed by an issuer"):
        await _answer(context, command)
    assert issubclass(ForgedAnswerError, CommandError)


async def test_a_forged_answer_to_a_reload_is_no_answer(
    bus: MemoryBus, context: OperatorContext
) -> None:
    command = anchor_reload_command("corp", "0123456789abcdef")
    await bus.append(reload_answer(command, "validator-0"), PLANTED)

    assert await reload_answer_of(context, command, "validator-0") is None
