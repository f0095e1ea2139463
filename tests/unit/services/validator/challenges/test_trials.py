"""A request that waits for another is tried for as long as it takes, unless it kills validators."""

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.consumer import RequestConsumer
from shared.bus.core import BusUnavailableError
from shared.limits import SERIES_LENGTH, TRIALS
from shared.log.envelope import Message, Stored
from shared.log.reasons import Reason
from shared.log.subjects import parse_subject, replay_record
from shared.log.subjects import token as digest
from shared.runtime.worker import DeferredError
from tests.support.enrollers import (
    ask,
    by_token,
    failed,
    holder,
    on_bus,
    result,
    token,
)
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import append, messages_of


class KilledError(BaseException):
    """What a handler raises here in place of the end of its process."""


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        found.accept(by_token(limit=1))
        yield found


async def waiting(world: World) -> tuple[Stored, Stored]:
    """Two messages with one CSR: the first is approved, the other waits for it."""
    first, second = [await ask(world, holder(), token(), signer=holder(n)) for n in (1, 2)]
    await world.consumer.handle(first)
    with pytest.raises(DeferredError):
        await world.consumer.handle(second)
    return first, second


def restarted(world: World) -> RequestConsumer:
    return on_bus(world, world.bus)


def trials(world: World) -> int:
    return len(
        [m for m in messages_of(world.bus, "REPLAYS") if m.subject.startswith("replay.tried")]
    )


async def dies(consumer: RequestConsumer, request: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(consumer, "_judge", killed)
        with pytest.raises(KilledError):
            await consumer.give_up(request)


@pytest.mark.slow
async def test_a_request_that_kills_every_validator_is_given_up_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await waiting(world)
    await failed(world, first)
    for _ in range(TRIALS):
        await dies(restarted(world), second, monkeypatch)

    await restarted(world).give_up(second)
    assert result(world, second) == Reason.POISON


async def test_a_request_that_waits_for_long_is_one_trial_of_each_process(world: World) -> None:
    first, second = await waiting(world)
    for number in range(3):
        consumer = restarted(world)
        for _ in range(TRIALS if number == 1 else 2):
            with pytest.raises(DeferredError):
                await consumer.give_up(second)

    assert trials(world) == 3
    await failed(world, first)
    await restarted(world).give_up(second)
    assert result(world, second) == "approved"


async def test_an_outage_is_no_trial(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker tries twice a second until it ends."""
    _, second = await waiting(world)
    consumer = restarted(world)

    async def away(*_: object) -> None:
        raise BusUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(consumer, "_judge", away)
        for _ in range(TRIALS + 1):
            with pytest.raises(BusUnavailableError):
                await consumer.give_up(second)

    assert trials(world) == 1
    with pytest.raises(DeferredError):
        await consumer.give_up(second)


async def test_what_nobody_signed_is_no_trial(world: World) -> None:
    first, second = await waiting(world)
    with pytest.raises(DeferredError):
        await world.consumer.give_up(second)
    (mark,) = [m for m in messages_of(world.bus, "REPLAYS") if m.subject.startswith("replay.tried")]
    place = mark.subject.rpartition(".")[0]
    for number in range(1, 1 + TRIALS):
        await append(world.bus, f"{place}.{number}", Message(b"{}", {}))

    await failed(world, first)
    await restarted(world).give_up(second)
    assert result(world, second) == "approved"


async def test_what_waits_behind_too_many_forged_marks_is_given_up(world: World) -> None:
    """It is not known whether it waits: an end is better than a letter that nobody answers."""
    first, second = [await ask(world, holder(), token(), signer=holder(n)) for n in (1, 2)]
    await world.consumer.handle(first)
    prefix = parse_subject(second.subject)[0].prefix()
    for number in range(SERIES_LENGTH + 2):
        place = replay_record("deferred", digest(prefix.encode()), number)
        await append(world.bus, place, Message(b"{}", {}))
    with pytest.raises(DeferredError):
        await world.consumer.handle(second)

    await world.consumer.give_up(second)
    assert result(world, second) == Reason.POISON
