"""Where the log is nearly full, new requests wait; what is under way is finished."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.audit.record.quota import QuotaMonitor
from services.gateway.refusals import RefusedError
from shared.bus.topology import quota_hints
from shared.log.envelope import EventSigner, sign
from shared.log.events.state import StreamMeasured
from shared.scep.certrep import PkiStatus
from tests.support.messages import Identity
from tests.support.world import ISSUING, NOW, OPERATOR, STRANGER, VALIDATOR, counted, turn
from tests.unit.services.gateway.gateways import World, make_world

STREAM = "ENROLL_0"


@pytest.fixture
async def world(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> World:
    return await make_world(device, ra, ec_key)


def hear(
    world: World,
    used: int,
    most: int = 100,
    by: EventSigner = OPERATOR,
    stream: str = STREAM,
    at: int = NOW,
    place: str = "",
) -> None:
    """What a gateway is told on the bus."""
    event = StreamMeasured(stream=stream, used=used, most=most, at=at)
    subject = place or quota_hints(stream)
    message = sign(event, subject, by)
    world.enroller.quota.on_hint(subject, message.payload, message.headers)


@pytest.mark.parametrize("used", [0, 79])
async def test_with_room_enough_devices_enroll(world: World, used: int) -> None:
    hear(world, used)

    assert (await world.enroll()).status is PkiStatus.SUCCESS


async def test_a_new_request_is_told_to_come_back_from_four_fifths_on(world: World) -> None:
    hear(world, 80)
    with pytest.raises(RefusedError) as refused:
        await world.enroll()
    response = refused.value.refusal.response()

    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert world.requests() == []
    hear(world, 79, at=NOW + 1)
    assert (await world.enroll()).status is PkiStatus.SUCCESS


async def test_what_is_on_the_log_already_is_answered(world: World) -> None:
    first = world.certificate(await world.enroll())
    hear(world, 99)

    assert world.certificate(await world.enroll()) == first


async def test_without_a_limit_a_stream_is_never_full(world: World) -> None:
    hear(world, 10**15, most=0)

    assert (await world.enroll()).status is PkiStatus.SUCCESS


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR, ISSUING])
async def test_nobody_but_the_audit_service_says_that_it_is_full(
    world: World, by: EventSigner
) -> None:
    before = counted("security_events", stage="quota")
    hear(world, 99, by=by)

    assert (await world.enroll()).status is PkiStatus.SUCCESS
    assert counted("security_events", stage="quota") == before + 1


@pytest.mark.parametrize("at", [NOW - 61, NOW + 61])
async def test_what_was_said_at_another_time_does_not_count(world: World, at: int) -> None:
    """Else one who had recorded it could stop all enrollments later."""
    hear(world, 99, at=at)

    assert (await world.enroll()).status is PkiStatus.SUCCESS


async def test_an_older_word_does_not_replace_a_newer_one(world: World) -> None:
    hear(world, 10, at=NOW)
    hear(world, 99, at=NOW - 1)

    assert (await world.enroll()).status is PkiStatus.SUCCESS


async def test_what_is_said_of_another_stream_does_not_count(world: World) -> None:
    hear(world, 99, stream="ENROLL_1")
    hear(world, 99, place=quota_hints("ENROLL_1"))

    assert (await world.enroll()).status is PkiStatus.SUCCESS


async def test_the_audit_service_says_what_gateways_understand(world: World) -> None:
    await world.bus.on_hint(quota_hints("*"), world.enroller.quota.on_hint)
    world.bus.most[STREAM] = 1
    room = QuotaMonitor(world.bus, OPERATOR, [STREAM], world.clock)
    await world.enroll()
    await room.look(STREAM)
    await turn(3)

    assert world.enroller.quota.is_full("0")
    assert not world.enroller.quota.is_full("1")
