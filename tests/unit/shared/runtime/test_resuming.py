"""Orders to resume an attempt: what a validator and an issuer make of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.commands import Commands
from services.issuer.crl_keeper import CrlKeeper
from services.issuer.orphans import OrphanConsumer
from services.issuer.responder import Responder
from services.issuer.revocation import RevocationConsumer
from shared.log.envelope import EventSigner, Stored
from shared.log.events.commands import ResumeOrdered
from shared.log.events.enrollment import (
    CertificateIssued,
    EnrollmentApproved,
    EnrollmentRejected,
    IssuanceFailed,
)
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, resume_command
from shared.runtime.live import Live
from shared.runtime.resuming import ResumeConsumer
from shared.runtime.worker import DeferredError
from tests.fakes.memory_bus import MemoryBus
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import OPERATOR, STRANGER, TRUSTED_OPERATORS, append_signed, counted
from tests.unit.services.issuer.issuers import ENROLLMENT, make_world
from tests.unit.services.issuer.issuers import World as IssuerWorld


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        yield found


def order_for(enrollment: EnrollmentId, stage: Stage, number: int = 0, **changes: Any) -> Any:
    values = {
        "enrollment": enrollment.prefix(),
        "stage": stage,
        "number": number,
        "give_up": False,
        "operator": "scepstream",
    }
    return ResumeOrdered(**(values | changes))


async def ordered(
    bus: MemoryBus, enrollment: EnrollmentId, order: Any, by: EventSigner = OPERATOR
) -> Stored:
    return await append_signed(bus, resume_command(enrollment, order.number), order, by)


def validator(world: World) -> ResumeConsumer:
    return ResumeConsumer(world.bus, Stage.VERDICT, world.consumer, lambda: TRUSTED_OPERATORS)


async def test_a_request_that_was_passed_over_gets_its_verdict(world: World) -> None:
    request = await world.request()
    order = await ordered(world.bus, world.enrollment, order_for(world.enrollment, Stage.VERDICT))
    await asyncio.gather(*(validator(world).handle(order) for _ in range(2)))

    assert isinstance(world.verdict(request), EnrollmentApproved)


async def test_an_order_to_give_up_ends_the_request_as_poison(world: World) -> None:
    request = await world.request()
    event = order_for(world.enrollment, Stage.VERDICT, 3, give_up=True)
    await validator(world).handle(await ordered(world.bus, world.enrollment, event))

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.POISON


async def test_an_order_that_kills_its_worker_ends_the_request_as_poison(world: World) -> None:
    request = await world.request()
    order = await ordered(world.bus, world.enrollment, order_for(world.enrollment, Stage.VERDICT))
    await validator(world).give_up(order)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.POISON


@pytest.mark.parametrize("give_up", [False, True])
async def test_an_attempt_with_a_verdict_or_a_hold_is_left_alone(
    world: World, *, give_up: bool
) -> None:
    world.allow(manual=True)
    await world.consumer.handle(await world.request())
    before = dict(world.bus.streams["ENROLL_0"].messages)
    event = order_for(world.enrollment, Stage.VERDICT, give_up=give_up)
    await validator(world).handle(await ordered(world.bus, world.enrollment, event))

    assert before == world.bus.streams["ENROLL_0"].messages


async def test_orders_of_strangers_and_for_other_attempts_change_nothing(world: World) -> None:
    await world.request()
    event = order_for(world.enrollment, Stage.VERDICT)
    other = msgspec.structs.replace(event, number=1, enrollment=world.enrollment.at(1).prefix())
    planted = msgspec.structs.replace(event, number=2, enrollment="enroll.0")
    before = counted("security_events", stage="command")
    for each, signer in ((event, STRANGER), (other, OPERATOR), (planted, OPERATOR)):
        await validator(world).handle(await ordered(world.bus, world.enrollment, each, signer))

    assert world.verdicts() == []
    assert counted("security_events", stage="command") == before + 3


async def test_orders_for_another_stage_and_without_a_message_are_done(world: World) -> None:
    await validator(world).handle(
        await ordered(world.bus, world.enrollment, order_for(world.enrollment, Stage.VERDICT))
    )
    await world.request()
    await validator(world).handle(
        await ordered(world.bus, world.enrollment, order_for(world.enrollment, Stage.OUTCOME, 1))
    )

    assert world.verdicts() == []


async def test_an_order_about_what_waits_for_another_attempt_is_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(_: Stored) -> None:
        raise DeferredError

    await world.request()
    order = await ordered(world.bus, world.enrollment, order_for(world.enrollment, Stage.VERDICT))
    monkeypatch.setattr(world.consumer, "handle", waits)
    await validator(world).handle(order)

    assert world.verdicts() == []


def issuer(world: IssuerWorld) -> Commands:
    keeper = CrlKeeper(world.bus, Live(world.settings), world.clock)
    return Commands(
        RevocationConsumer(
            world.bus,
            Live(world.settings),
            keeper,
            Responder(world.bus, Live(world.settings), world.clock, "test"),
        ),
        OrphanConsumer(world.bus, Live(world.settings)),
        ResumeConsumer(world.bus, Stage.OUTCOME, world.consumer, lambda: TRUSTED_OPERATORS),
    )


@pytest.mark.parametrize("give_up", [False, True])
async def test_an_approval_that_was_passed_over_gets_its_outcome(
    ec_key: ec.EllipticCurvePrivateKey, *, give_up: bool
) -> None:
    world = await make_world(ec_key)
    await world.verdict()
    for number, stage in enumerate((Stage.VERDICT, Stage.OUTCOME)):
        event = order_for(ENROLLMENT, stage, number, give_up=give_up)
        await issuer(world).handle(await ordered(world.bus, ENROLLMENT, event))

    assert isinstance(world.outcome(), IssuanceFailed if give_up else CertificateIssued)


async def test_an_order_that_kills_its_issuer_ends_the_approval(
    ec_key: ec.EllipticCurvePrivateKey,
) -> None:
    world = await make_world(ec_key)
    await world.verdict()
    event = order_for(ENROLLMENT, Stage.OUTCOME)
    await issuer(world).give_up(await ordered(world.bus, ENROLLMENT, event))

    assert isinstance(world.outcome(), IssuanceFailed)
