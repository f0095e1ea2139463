"""One CSR under several signers: whoever recorded a message can sign it again; it counts once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.ceilings import names_sha256
from shared.limits import SAME_CSR_PLACES, SAME_CSR_RECORDS
from shared.log.envelope import Stored
from shared.log.events.enrollment import EnrollmentApproved
from shared.log.reasons import Reason
from shared.log.streams import REPLAYS
from shared.log.subjects import certificate_issued, key_issued, parse_subject
from shared.runtime.worker import DeferredError
from tests.support.enrollers import (
    ask,
    by_token,
    failed,
    holder,
    issued,
    judgement,
    places,
    replicas,
    result,
    token,
    verdict,
)
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import ISSUER, ISSUING, PROFILE, SERIAL, append_signed, messages_of
from tests.unit.services.validator.records import record

pytestmark = pytest.mark.slow

PASSWORD = "s3cret"


@pytest.fixture(params=["static", "signed"])
async def world(
    request: pytest.FixtureRequest,
    device: Identity,
    ra: Identity,
    ec_key: ec.EllipticCurvePrivateKey,
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        if request.param == "signed":
            found.accept(by_token(limit=1))
        yield found


def challenge_of(world: World) -> str:
    return token() if world.evaluator.live.current.access[PROFILE].signed else PASSWORD


async def again(world: World, number: int) -> Stored:
    """The device's CSR in a message that somebody else signed."""
    return await ask(world, holder(), challenge_of(world), signer=holder(number))


async def made(world: World, request: Stored) -> None:
    """The certificate of an approved request, recorded and issued."""
    approved = verdict(world, request)
    assert isinstance(approved, EnrollmentApproved)
    key = approved.facts.spki_sha256
    event = record(
        enrollment=parse_subject(request.subject)[0].prefix(),
        spki_sha256=key,
        serial=SERIAL,
        names_sha256=names_sha256(approved.template),
        not_before=approved.template.not_before,
        not_after=approved.template.not_after,
    )
    for place in (certificate_issued(ISSUER, SERIAL), key_issued(key, ISSUER, SERIAL)):
        await append_signed(world.bus, place, event, ISSUING)
    await issued(world, request)


async def waits(world: World, request: Stored) -> bool:
    try:
        await world.consumer.handle(request)
    except DeferredError:
        return True
    return False


async def test_who_signs_again_first_gets_nobody_into_trouble(world: World) -> None:
    """The device itself waits for what was begun in its name, and gets that certificate."""
    stolen = await again(world, 7)
    assert await judgement(world, stolen) == "approved"
    own = await ask(world, holder(), challenge_of(world))
    if challenge_of(world) != PASSWORD:
        assert await waits(world, own)

    await made(world, stolen)
    assert await judgement(world, own) == "approved"
    approved = verdict(world, own)
    assert isinstance(approved, EnrollmentApproved)
    assert approved.existing == SERIAL


async def test_a_hundred_signers_of_one_csr_wait_for_the_first_and_get_its_certificate(
    world: World,
) -> None:
    first = await again(world, 1)
    assert await judgement(world, first) == "approved"
    others = [await again(world, number) for number in range(2, 102)]
    assert all([await waits(world, each) for each in others])
    assert len(messages_of(world.bus, "ENROLL_0", ".verdict")) == 1

    await made(world, first)
    assert {await judgement(world, each) for each in others} == {"approved"}
    verdicts = [verdict(world, each) for each in others]
    assert {v.existing for v in verdicts if isinstance(v, EnrollmentApproved)} == {SERIAL}
    assert places(world) <= 1


async def test_one_of_many_signers_at_once_enrolls(world: World) -> None:
    requests = [await again(world, number) for number in range(1, 9)]
    consumers = replicas(world)
    results = await asyncio.gather(
        *(consumers[n % 4].handle(each) for n, each in enumerate(requests)),
        return_exceptions=True,
    )

    assert sum(found is None for found in results) == 1
    assert sum(isinstance(found, DeferredError) for found in results) == 7


async def test_after_a_failure_the_next_signer_may_try(world: World) -> None:
    first, second = await again(world, 1), await again(world, 2)
    assert await judgement(world, first) == "approved"
    assert await waits(world, second)
    await failed(world, first)

    assert await judgement(world, second) == "approved"


async def test_who_waited_long_does_not_end_as_poison(world: World) -> None:
    """The server counts how often it was handed out, not why."""
    first, second = await again(world, 1), await again(world, 2)
    await world.consumer.handle(first)
    assert await waits(world, second)
    with pytest.raises(DeferredError):
        await world.consumer.give_up(second)

    await made(world, first)
    await world.consumer.give_up(second)
    assert result(world, second) == "approved"


async def test_of_one_csr_only_so_many_wait(world: World) -> None:
    first = await again(world, 1)
    await world.consumer.handle(first)
    for number in range(SAME_CSR_PLACES):
        assert await waits(world, await again(world, 2 + number))

    last = await again(world, 2 + SAME_CSR_PLACES)
    assert await judgement(world, last) == Reason.RATE_LIMITED


async def test_a_reload_does_not_let_more_wait(world: World) -> None:
    await world.consumer.handle(await again(world, 1))
    for number in range(SAME_CSR_PLACES):
        assert await waits(world, await again(world, 2 + number))

    world.accept(replace(world.evaluator.live.current.access[PROFILE]))
    last = await again(world, 2 + SAME_CSR_PLACES)
    assert await judgement(world, last) == Reason.RATE_LIMITED


async def test_after_a_failure_one_of_those_who_waited_enrolls_and_the_others_wait_for_it(
    world: World,
) -> None:
    """Else one challenge would make a certificate for each of them."""
    first, *others = [await again(world, number) for number in range(1, 7)]
    assert await judgement(world, first) == "approved"
    assert all([await waits(world, each) for each in others])
    await failed(world, first)

    assert [await waits(world, each) for each in others] == [False, True, True, True, True]
    await made(world, others[0])
    assert [await judgement(world, each) for each in others[1:]] == ["approved"] * 4


async def test_whoever_failed_and_tries_again_waits_for_who_came_after(world: World) -> None:
    first, second = await again(world, 1), await again(world, 2)
    await world.consumer.handle(first)
    await failed(world, first)
    assert await judgement(world, second) == "approved"
    retry = await ask(world, holder(), challenge_of(world), signer=holder(1), attempt=1)

    assert await waits(world, retry)


async def test_who_waited_and_cannot_be_handled_ends_as_poison_and_not_without_a_word(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await again(world, 1), await again(world, 2)
    await world.consumer.handle(first)
    assert await waits(world, second)

    async def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(world.consumer, "_judge", broken)
    await world.consumer.give_up(second)
    assert result(world, second) == Reason.POISON


@pytest.fixture
def replay_reads(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subjects of which validators read the next record, in order."""
    asked: list[str] = []
    read = world.bus.get_next_or_leader

    async def counted(stream: str, subject: str, sequence: int) -> Stored | None:
        if stream == REPLAYS:
            asked.append(subject)
        return await read(stream, subject, sequence)

    monkeypatch.setattr(world.bus, "get_next_or_leader", counted)
    return asked


async def test_of_one_csr_only_so_many_failures_are_looked_at(
    world: World, replay_reads: list[str]
) -> None:
    """Whoever recorded a message can sign it again without end; each leaves a record."""
    for number in range(SAME_CSR_RECORDS):
        request = await again(world, 1 + number)
        assert await judgement(world, request) == "approved"
        await failed(world, request)
    replay_reads.clear()
    for number in range(2):
        last = await again(world, 1 + SAME_CSR_RECORDS + number)
        assert await judgement(world, last) == Reason.RATE_LIMITED
    assert len(replay_reads) <= 2 * (SAME_CSR_RECORDS + 1)
    assert len(messages_of(world.bus, REPLAYS)) == SAME_CSR_RECORDS


async def test_a_new_request_after_failures_reads_their_records_once(
    world: World, replay_reads: list[str]
) -> None:
    for number in range(10):
        request = await again(world, 1 + number)
        assert await judgement(world, request) == "approved"
        await failed(world, request)
    replay_reads.clear()
    assert await judgement(world, await again(world, 11)) == "approved"
    assert len(replay_reads) <= 14
