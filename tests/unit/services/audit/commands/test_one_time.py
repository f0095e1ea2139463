"""One-time challenges at the operators' desk: told as a validator would judge them."""

from dataclasses import dataclass
from typing import Any

import pytest

from services.audit.commands.context import ConflictError, OperatorContext
from services.audit.commands.one_time import cancel, create, list_challenges
from shared.log.envelope import EventSigner
from shared.log.events.enrollment import IssuanceFailed
from shared.log.events.state import ChallengeClaimed
from shared.log.one_time import ONE_TIME
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, replay_record
from tests.fakes.memory_bus import MemoryBus
from tests.support.operator_api import settings
from tests.support.world import (
    ISSUING,
    NOW,
    PROFILE,
    REQUEST_SHA256,
    STRANGER,
    TRUSTED_ISSUERS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append_signed,
    memory_bus,
)

DAY = 86400


@dataclass
class Enabled:
    """As much of a profile as is looked at."""

    one_time_enabled: bool = True


class Configured:
    """As much of a configuration."""

    profiles = {PROFILE: Enabled()}  # noqa: RUF012 - a test's


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


@pytest.fixture
def context(bus: MemoryBus) -> OperatorContext:
    configured: Any = Configured()
    return OperatorContext(bus, settings(), configured, TRUSTED_VALIDATORS, TRUSTED_ISSUERS, "ann")


async def made(context: OperatorContext) -> str:
    """The id of a challenge for a day."""
    return (await create(context, PROFILE, "device", (), NOW + DAY)).id


def attempt(number: int = 0) -> EnrollmentId:
    return EnrollmentId("0", PROFILE, "t" * 8, "c" * 8, number)


async def used(
    bus: MemoryBus, challenge: str, number: int = 0, by: EventSigner = VALIDATOR
) -> None:
    """A validator records who uses it."""
    event = ChallengeClaimed(
        request_sha256=REQUEST_SHA256,
        kind=ONE_TIME,
        enrollment=attempt(number).prefix(),
        spki_sha256="11" * 32,
        expires_at=NOW + DAY,
    )
    await append_signed(bus, replay_record(ONE_TIME, challenge, number), event, by)


async def failed(bus: MemoryBus, number: int = 0) -> None:
    """The issuer could not make a certificate."""
    reason = Reason.POISON
    event = IssuanceFailed(
        request_sha256=REQUEST_SHA256, reason=reason, fail_info=FAIL_INFO[reason], detail="x"
    )
    await append_signed(bus, attempt(number).subject(Stage.OUTCOME), event, ISSUING)


async def state(context: OperatorContext) -> str:
    (line,) = await list_challenges(context, PROFILE, NOW)
    return line.state


async def test_what_is_open_can_be_taken_back(context: OperatorContext) -> None:
    challenge = await made(context)
    assert await state(context) == "open"
    await cancel(context, PROFILE, challenge, NOW)

    assert await state(context) == "cancelled"
    with pytest.raises(ConflictError, match="already cancelled"):
        await cancel(context, PROFILE, challenge, NOW)


async def test_what_is_used_cannot(context: OperatorContext, bus: MemoryBus) -> None:
    challenge = await made(context)
    await used(bus, challenge)

    with pytest.raises(ConflictError, match="already used"):
        await cancel(context, PROFILE, challenge, NOW)
    assert await state(context) == "used"


async def test_what_no_validator_signed_is_no_use(context: OperatorContext, bus: MemoryBus) -> None:
    challenge = await made(context)
    await used(bus, challenge, by=STRANGER)

    assert await state(context) == "open"


async def test_a_challenge_whose_every_use_has_failed_can_be_taken_back(
    context: OperatorContext, bus: MemoryBus
) -> None:
    """Its device may still try again, which an operator must be able to end."""
    challenge = await made(context)
    for number in range(2):
        await used(bus, challenge, number)
        await failed(bus, number)
    assert await state(context) == "used"
    await cancel(context, PROFILE, challenge, NOW)

    assert await state(context) == "cancelled"


async def test_of_several_uses_one_that_has_not_failed_holds_the_challenge(
    context: OperatorContext, bus: MemoryBus
) -> None:
    challenge = await made(context)
    await used(bus, challenge, 0)
    await failed(bus, 0)
    await used(bus, challenge, 1)

    with pytest.raises(ConflictError, match="already used"):
        await cancel(context, PROFILE, challenge, NOW)
