"""Requests that somebody planted beside a device's: it is neither refused for them nor misled."""

import asyncio
from dataclasses import replace

import msgspec.structs
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.bus.core import AppendConflictError, BusUnavailableError
from shared.limits import PLANTED_ATTEMPTS
from shared.log.envelope import Message, Stored, decode, encode
from shared.log.events.enrollment import EnrollmentRequested
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.scep.certrep import PkiStatus
from tests.support.messages import Identity
from tests.support.world import append, until
from tests.unit.services.gateway.gateways import World, make_world


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


@pytest.fixture
def lookups(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subjects of which the log's leader is asked, in order."""
    asked: list[str] = []
    last = world.bus.get_last_from_leader

    async def counted(stream: str, subject: str) -> Stored | None:
        asked.append(subject)
        await asyncio.sleep(0)
        return await last(stream, subject)

    monkeypatch.setattr(world.bus, "get_last_from_leader", counted)
    return asked


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


async def test_what_was_planted_above_the_newest_attempt_is_passed_by(
    world: World, lookups: list[str]
) -> None:
    """The number after the device's newest attempt was occupied before that one was made."""
    world.others.answer, world.others.reason = "rejected", Reason.DENIED
    await world.enroll()
    await planted(world, 2)
    world.others.answer, world.others.reason = "rejected", Reason.DENIED
    world.clock.seconds += 40
    await world.enroll()
    world.others.answer = "issued"
    world.clock.seconds += 400
    lookups.clear()

    assert (await world.enroll()).status is PkiStatus.SUCCESS
    assert [each.attempt for each in world.others.seen] == [0, 2, 1, 3]
    assert len(lookups) < 20


async def test_a_gateway_gives_up_where_every_number_is_taken_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever plants faster than a gateway asks costs a request its reply budget, no more."""
    world.profile = replace(world.profile, reply_budget=0.2)
    world.others.answer, world.others.reason = "rejected", Reason.DENIED
    await world.enroll()
    world.clock.seconds += 40

    async def conflict(subject: str, *_: object) -> int:
        raise AppendConflictError(subject)

    monkeypatch.setattr(world.bus, "append", conflict)
    async with asyncio.timeout(20):
        with pytest.raises(BusUnavailableError, match="number"):
            await world.enroll()


@pytest.mark.slow
async def test_more_planted_attempts_than_are_looked_through_keep_no_device_out(
    world: World,
) -> None:
    for attempt in range(PLANTED_ATTEMPTS + 3):
        await append(world.bus, world.enrollment().at(attempt).subject(Stage.REQUEST), JUNK)

    certificate = world.certificate(await world.enroll())
    assert world.certificate(await world.enroll()) == certificate
    assert world.certificate(await world.poll()) == certificate
    mine = [e.attempt for e in world.others.seen if e.attempt >= PLANTED_ATTEMPTS + 3]
    assert len(mine) == 1
