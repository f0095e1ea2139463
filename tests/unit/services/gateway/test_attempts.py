"""Requests that somebody planted beside a device's: it is neither refused for them nor misled."""

import msgspec.structs
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.events import EnrollmentRequested
from shared.reasons import Reason
from shared.scep.certrep import PkiStatus
from shared.stored import Message, decode, encode
from shared.subjects import Stage
from tests.unit.services.gateway.gateways import World, make_world
from tests.unit.shared.scep.messages import Identity
from tests.unit.world import append, until


@pytest.fixture
async def world(
    device: Identity,
    ra: Identity,
    ec_key: ec.EllipticCurvePrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setattr("services.gateway.outcomes._POLL_SECONDS", 0.01)
    return await make_world(device, ra, ec_key)


JUNK = Message(b"{}", {"Scepstream-Type": "EnrollmentRequested"})


async def planted(world: World, attempt: int, message: Message = JUNK) -> None:
    """Somebody else's request as this attempt, and the validator's refusal of it."""
    place = world.enrollment().at(attempt)
    world.others.answer, world.others.reason = "rejected", Reason.BAD_MESSAGE
    await append(world.bus, place.subject(Stage.REQUEST), message)
    ended = place.subject(Stage.VERDICT)
    await until(lambda: ended in [each.subject for each in world.ends()])
    world.others.answer = "issued"


async def copied(world: World) -> Message:
    """The device's own request, whose content key nobody can open."""
    (stored,) = world.requests()
    event = decode(stored.payload, stored.headers)
    assert isinstance(event, EnrollmentRequested)
    return encode(msgspec.structs.replace(event, content_key=bytes(80)))


@pytest.mark.parametrize("attempt", [1, 999_999_999])
@pytest.mark.parametrize("kind", ["junk", "copy"])
async def test_a_planted_attempt_does_not_hide_the_certificate(
    world: World, attempt: int, kind: str
) -> None:
    given = world.certificate(await world.enroll())
    await planted(world, attempt, JUNK if kind == "junk" else await copied(world))

    assert world.certificate(await world.poll()) == given
    assert world.certificate(await world.enroll()) == given


async def test_a_planted_first_attempt_makes_the_devices_own_the_second(world: World) -> None:
    await planted(world, 0)

    assert (await world.enroll()).status is PkiStatus.SUCCESS
    assert [each.attempt for each in world.others.seen] == [0, 1]
    assert (await world.poll()).status is PkiStatus.SUCCESS


async def test_where_all_is_planted_a_poll_is_told_to_wait(world: World) -> None:
    await planted(world, 0)

    assert (await world.poll()).status is PkiStatus.PENDING


async def test_the_next_attempt_after_a_refusal_passes_by_planted_ones(world: World) -> None:
    world.others.answer, world.others.reason = "rejected", Reason.DENIED
    await world.enroll()
    for attempt in (1, 2):
        await planted(world, attempt)
    world.clock.seconds += 40

    assert (await world.enroll()).status is PkiStatus.SUCCESS
    assert [each.attempt for each in world.others.seen] == [0, 1, 2, 3]
