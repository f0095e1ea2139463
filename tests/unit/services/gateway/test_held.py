"""Enrollments that wait for an operator: the device is told at once, and again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.outcomes import EnrollmentStatus, PendingRequest
from shared.log.envelope import SUBJECT, EventSigner, sign
from shared.log.events.enrollment import EnrollmentHeld
from shared.log.shards import Epoch
from shared.log.stages import Stage
from shared.scep.certrep import CertRep, PkiStatus
from tests.support.messages import PRINTABLE, Identity, spki, tlv
from tests.support.templates import template
from tests.support.world import (
    GATEWAY,
    ISSUING,
    NOW,
    STRANGER,
    VALIDATOR,
    append,
    approved,
    counted,
    facts,
    signed_event,
)
from tests.unit.services.gateway.gateways import World, make_world

# Far below the reply budget of 20 seconds, which is what a wait would take.
AT_ONCE = 10


@pytest.fixture
async def world(
    device: Identity,
    ra: Identity,
    ec_key: ec.EllipticCurvePrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setattr("services.gateway.outcomes._POLL_SECONDS", 0.01)
    found = await make_world(device, ra, ec_key)
    found.others.answer = "held"
    return found


async def at_once(reply: Awaitable[CertRep]) -> PkiStatus:
    async with asyncio.timeout(AT_ONCE):
        return (await reply).status


@pytest.mark.parametrize("hints", [True, False])
async def test_a_device_whose_request_is_held_is_told_pending_at_once(
    world: World,
    hints: bool,  # noqa: FBT001 - a case
) -> None:
    world.others.hints = hints

    assert await at_once(world.enroll()) is PkiStatus.PENDING


@pytest.mark.parametrize("ask", [World.enroll, World.poll])
async def test_while_it_is_held_polls_and_repeats_are_told_pending_at_once(
    world: World, ask: Callable[[World], Awaitable[CertRep]]
) -> None:
    await world.enroll()

    assert await at_once(ask(world)) is PkiStatus.PENDING
    assert len(world.requests()) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("issued", PkiStatus.SUCCESS),
        ("rejected", PkiStatus.FAILURE),
        ("failed", PkiStatus.FAILURE),
    ],
)
async def test_after_the_decision_polls_and_repeats_get_the_end(
    world: World, answer: str, expected: PkiStatus
) -> None:
    await world.enroll()
    world.others.answer = answer
    await world.others.end(world.enrollment(), world.requests()[0])

    assert (await world.poll()).status is expected
    assert (await world.enroll()).status is expected
    assert len(world.requests()) == 1


async def test_once_it_is_approved_a_repeat_waits_for_the_certificate(world: World) -> None:
    """It is held no more: the end is a moment away."""
    await world.enroll()
    (request,) = world.requests()
    subject = world.enrollment().subject(Stage.VERDICT)
    event = approved(template(world.ca.certificate), request_sha256=request.sha256())
    await append(world.bus, subject, signed_event(event, subject, VALIDATOR))
    waiting = asyncio.create_task(world.enroll())
    world.others.answer = "issued"
    await world.others.end(world.enrollment(), request)

    assert (await waiting).status is PkiStatus.SUCCESS


async def test_a_forged_hold_does_not_hold_a_device_up(world: World) -> None:
    world.others.forge = STRANGER
    before = counted("security_events", stage="hold")
    assert (await world.enroll()).status is PkiStatus.PENDING
    world.others.answer, world.others.forge = "issued", None

    assert counted("security_events", stage="hold") > before
    assert (await world.enroll()).status is PkiStatus.SUCCESS
    assert [e.attempt for e in world.others.seen] == [0, 1]


# Holds that outlive the map of shards


@pytest.fixture
async def moved(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> World:
    """A request was held on shard 0; the profile lives on shard 1 since, beyond the window."""
    epochs = (Epoch(0, ("0",)), Epoch(NOW + 10, ("1",)), Epoch(NOW + 10**9, ("planned",)))
    found = await make_world(device, ra, ec_key, epochs=epochs, shards=("0", "1"))
    found.others.answer = "held"
    await found.enroll()
    found.clock.seconds = NOW + 11 + 2 * 86400
    return found


async def test_a_poll_finds_a_hold_on_a_shard_of_any_earlier_epoch(moved: World) -> None:
    assert await at_once(moved.poll()) is PkiStatus.PENDING

    moved.others.answer = "issued"
    await moved.others.end(moved.enrollment(), moved.requests()[0])

    assert (await moved.poll()).status is PkiStatus.SUCCESS


async def test_a_poll_of_what_no_shard_knows_asks_all_that_have_begun(moved: World) -> None:
    reply = await moved.poll(transaction_id=tlv(PRINTABLE, b"unheard-of"))

    assert reply.status is PkiStatus.FAILURE


async def test_a_poll_that_is_answered_by_its_own_shard_asks_no_other(
    world: World,
) -> None:
    await world.enroll()
    world.enroller.live.current = replace(
        world.enroller.live.current, epochs=(Epoch(0, ("gone",)), Epoch(1, ("0",)))
    )

    assert await at_once(world.poll()) is PkiStatus.PENDING


# Holds as the gateway reads them


@pytest.fixture
async def request_(world: World) -> PendingRequest:
    world.others.answer = "nothing"
    key = spki(world.device.key.public_key())
    return PendingRequest(world.enrollment(), "77" * 32, key, world.profile)


def hold(request_: PendingRequest) -> EnrollmentHeld:
    return EnrollmentHeld(request_sha256=request_.sha256, facts=facts(), gates=())


async def test_a_hold_on_the_log_is_settled_and_no_end(
    world: World, request_: PendingRequest
) -> None:
    subject = request_.enrollment.subject(Stage.HOLD)
    await append(world.bus, subject, signed_event(hold(request_), subject, VALIDATOR))
    end = await world.outcomes.read(request_, world.chain)

    assert (end.terminal, end.held, end.forged, end.settled) == (None, True, False, True)


@pytest.mark.parametrize("by", [STRANGER, ISSUING])
async def test_a_hold_that_no_validator_signed_is_a_forgery(
    world: World, request_: PendingRequest, by: EventSigner
) -> None:
    subject = request_.enrollment.subject(Stage.HOLD)
    await append(world.bus, subject, signed_event(hold(request_), subject, by))

    assert await world.outcomes.read(request_, world.chain) == EnrollmentStatus(forged=True)


async def test_a_hold_hinted_under_a_verdicts_subject_is_nothing(
    world: World, request_: PendingRequest
) -> None:
    subject = request_.enrollment.subject(Stage.VERDICT)
    message = sign(hold(request_), subject, VALIDATOR)
    with world.outcomes.waiter(request_.enrollment) as hint:
        headers = message.headers | {SUBJECT: subject}
        world.outcomes.on_hint(f"gw.{GATEWAY}", message.payload, headers)
        deadline = asyncio.get_running_loop().time() + 0.03

        assert (
            await world.outcomes.wait(request_, world.chain, hint, deadline) == EnrollmentStatus()
        )
