"""What several validators remember together: each challenge's holder, each device's places."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.challenges.device_state import DeviceAnswer, DeviceQuestion, DeviceStateGate
from services.validator.challenges.signed import SIGNED
from services.validator.consumer import RequestConsumer
from shared.bus.core import BusUnavailableError
from shared.log.envelope import EventSigner, Message, Stored, authenticate_as, encode
from shared.log.events.enrollment import EnrollmentRejected
from shared.log.events.state import ChallengeClaimed, CountedEnrollment, DeviceCounted
from shared.log.reasons import Reason
from shared.log.streams import DEVICES, REPLAYS
from shared.log.subjects import device_subject, parse_subject, replay_record
from shared.log.subjects import token as digest
from shared.runtime.worker import DeferredError
from tests.fakes.bus_through import BusThrough, Step, Trouble
from tests.support.enrollers import (
    CONNECTOR,
    DAY,
    OTHER_CONNECTOR,
    SUBJECT,
    ask,
    by_token,
    claims,
    evaluate_all,
    failed,
    holder,
    issued,
    judgement,
    on_bus,
    places,
    replicas,
    result,
    token,
    verdict,
    windows,
)
from tests.support.messages import COMMON_NAME, PRINTABLE, Identity, name
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUING,
    NOW,
    OPERATOR,
    PROFILE,
    REQUEST_SHA256,
    STRANGER,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append,
    counted,
    messages_of,
    signed_event,
    turn,
)

SEEDS = range(3)
UNTIL = NOW + 3600 + 60  # a token's end, and how far clocks may be off
MARGIN = 600
FULL = ("approved", "approved", "approved", Reason.RATE_LIMITED)


class DiedError(Exception):
    """Stands for kill -9: nothing of the validator goes on after it."""


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        found.accept(by_token())
        yield found


def claim_place(nonce: str = "n-1", number: int | str = 0) -> str:
    return replay_record(SIGNED, digest(CONNECTOR.name.encode(), nonce.encode()), number)


def window_place(
    subject: str = SUBJECT, issuer: str = CONNECTOR.name, number: int | str = 0
) -> str:
    return device_subject(digest(PROFILE.encode(), issuer.encode(), subject.encode()), number)


async def tokens_of_one_device(world: World, number: int, first: int = 0) -> list[Stored]:
    """So many requests with a token each, all for the same device id, by so many keys."""
    return [
        await ask(world, holder(each), token(f"n-{each}")) for each in range(first, first + number)
    ]


# Races


@pytest.mark.parametrize("seed", SEEDS)
async def test_of_fifty_requests_with_one_token_on_four_validators_one_is_approved(
    world: World, seed: int
) -> None:
    requests = [await ask(world, holder(each), token()) for each in range(50)]
    await evaluate_all(replicas(world, 4, seed), requests)
    results = [result(world, request) for request in requests]

    assert results.count("approved") == 1
    assert results.count(Reason.REPLAY) == 49
    assert len(claims(world)) == 1
    assert places(world) == 1


@pytest.mark.parametrize("seed", SEEDS)
async def test_of_ten_tokens_of_one_device_with_limit_three_exactly_three_are_approved(
    world: World, seed: int
) -> None:
    requests = await tokens_of_one_device(world, 10)
    await evaluate_all(replicas(world, 4, seed), requests)
    results = [result(world, request) for request in requests]

    assert results.count("approved") == 3
    assert results.count(Reason.RATE_LIMITED) == 7
    assert places(world) == 3


@pytest.mark.parametrize("seed", SEEDS)
async def test_one_request_on_all_validators_at_once_counts_once_and_is_approved(
    world: World, seed: int
) -> None:
    request = await ask(world, holder(), token())
    await evaluate_all(replicas(world, 4, seed), [request] * 12)

    assert result(world, request) == "approved"
    assert (len(claims(world)), places(world)) == (1, 1)


@pytest.mark.parametrize("seed", SEEDS)
async def test_places_that_failed_enrollments_give_back_are_not_given_away_twice(
    world: World, seed: int
) -> None:
    """Two of three came to nothing: of ten that race for their places two get one."""
    first = await tokens_of_one_device(world, 3)
    for request in first:
        assert await judgement(world, request) == "approved"
    await failed(world, first[0])
    await failed(world, first[2])
    later = await tokens_of_one_device(world, 10, first=3)
    await evaluate_all(replicas(world, 4, seed), later)
    results = [result(world, request) for request in later]

    assert results.count("approved") == 2
    assert results.count(Reason.RATE_LIMITED) == 8
    assert places(world) == 3


# Once


@pytest.mark.parametrize("other", [False, True])
async def test_a_redelivered_request_is_neither_counted_nor_claimed_again(
    world: World,
    other: bool,  # noqa: FBT001 - a case
) -> None:
    request = await ask(world, holder(), token())
    assert await judgement(world, request) == "approved"
    before = (claims(world), messages_of(world.bus, DEVICES))
    world.clock.seconds += 1800
    await (on_bus(world, world.bus) if other else world.consumer).handle(request)

    assert (claims(world), messages_of(world.bus, DEVICES)) == before
    assert result(world, request) == "approved"


async def test_a_new_attempt_after_a_failure_passes_and_takes_no_second_place(
    world: World,
) -> None:
    first = await ask(world, holder(), token())
    assert await judgement(world, first) == "approved"
    await failed(world, first)
    world.clock.seconds += 60
    again = await ask(world, holder(), token(), attempt=1)

    assert await judgement(world, again) == "approved"
    assert (len(claims(world)), places(world)) == (2, 1)
    (entry,), *_ = windows(world)
    assert parse_subject(f"{entry.enrollment}.request")[0].attempt == 1


async def test_a_new_attempt_keeps_its_place_in_a_full_window(world: World) -> None:
    requests = await tokens_of_one_device(world, 3)
    for request in requests:
        assert await judgement(world, request) == "approved"
    await failed(world, requests[1])
    again = await ask(world, holder(1), token("n-1"), attempt=1)

    assert await judgement(world, again) == "approved"
    assert places(world) == 3


async def test_a_new_attempt_keeps_its_place_when_the_limit_is_lowered(world: World) -> None:
    requests = await tokens_of_one_device(world, 3)
    for request in requests:
        assert await judgement(world, request) == "approved"
    await failed(world, requests[1])
    world.accept(by_token(limit=1))
    again = await ask(world, holder(1), token("n-1"), attempt=1)
    another = await ask(world, holder(3), token("n-3"))

    assert await judgement(world, again) == "approved"
    assert await judgement(world, another) == Reason.RATE_LIMITED


async def test_many_attempts_of_one_enrollment_take_one_place(world: World) -> None:
    for attempt in range(5):
        request = await ask(world, holder(), token(), attempt=attempt)
        assert await judgement(world, request) == "approved"
        await failed(world, request)

    assert places(world) == 1


async def test_the_same_csr_in_another_transaction_waits_for_the_first(world: World) -> None:
    """While a certificate is under way a second one may not be: what was first decides."""
    challenge = token()
    first = await ask(world, holder(), challenge)
    assert await judgement(world, first) == "approved"
    again = await ask(world, holder(), challenge, transaction=b"another")
    with pytest.raises(DeferredError):
        await world.consumer.handle(again)

    await issued(world, first)  # and its certificate is not on record: it does not live any more
    assert await judgement(world, again) == Reason.REPLAY


async def test_the_same_csr_in_another_transaction_is_a_retry_after_a_failure(
    world: World,
) -> None:
    challenge = token()
    first = await ask(world, holder(), challenge)
    assert await judgement(world, first) == "approved"
    await failed(world, first)
    again = await ask(world, holder(), challenge, transaction=b"another")

    assert await judgement(world, again) == "approved"


async def test_another_request_of_the_same_key_does_not_hold_the_token(world: World) -> None:
    challenge = token()
    assert await judgement(world, await ask(world, holder(), challenge)) == "approved"
    other = await ask(world, holder(), challenge, subject=name((COMMON_NAME, PRINTABLE, b"device")))

    assert await judgement(world, other) == Reason.REPLAY
    refused = verdict(world, other)
    assert isinstance(refused, EnrollmentRejected)
    assert refused.detail == "the challenge was already used by another request of the same key"


async def test_the_verdict_names_the_record_of_its_token(world: World) -> None:
    request = await ask(world, holder(), token())
    assert await judgement(world, request) == "approved"

    (stored,) = claims(world)
    event = verdict(world, request)
    assert event.claim is not None
    assert stored.subject == claim_place()
    assert event.claim.record == claim_place(number="*")
    record = authenticate_as(ChallengeClaimed, stored, TRUSTED_VALIDATORS)
    assert (record.kind, record.expires_at) == (SIGNED, UNTIL)
    assert record.enrollment == parse_subject(request.subject)[0].prefix()
    assert record.request_sha256 == request.sha256()


async def test_no_token_and_no_nonce_is_readable_on_the_log(world: World) -> None:
    nonce, text = "n0nce-that-nobody-may-read", token("n0nce-that-nobody-may-read")
    assert await judgement(world, await ask(world, holder(), text)) == "approved"
    assert await judgement(world, await ask(world, holder(1), text)) == Reason.REPLAY

    messages = [m for stream in world.bus.streams.values() for m in stream.messages.values()]
    written = b"".join(m.payload + repr((m.subject, m.headers)).encode() for m in messages)
    for secret in (nonce, *text.split(".")):
        assert secret.encode() not in written


# Whose window


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "device-guid-2"},
        {"by": OTHER_CONNECTOR},
        {"subject": SUBJECT.upper()},
        {"subject": f"{SUBJECT} "},
    ],
)
async def test_each_device_of_each_connector_has_its_own_window(
    world: World, other: dict[str, Any]
) -> None:
    world.accept(by_token(CONNECTOR, OTHER_CONNECTOR, limit=1))
    assert await judgement(world, await ask(world, holder(), token())) == "approved"
    second = await ask(world, holder(1), token("n-2", **other))

    assert await judgement(world, second) == "approved"
    assert [len(entries) for entries in windows(world)] == [1, 1]


async def test_a_limit_of_none_counts_nothing(world: World) -> None:
    world.accept(by_token(limit=0))
    for request in await tokens_of_one_device(world, 5):
        assert await judgement(world, request) == "approved"

    assert windows(world) == []


@pytest.mark.parametrize(("later", "expected"), [(DAY - 1, Reason.RATE_LIMITED), (DAY, "approved")])
async def test_a_place_is_free_again_after_a_day(
    world: World, later: int, expected: Reason | str
) -> None:
    world.accept(by_token(limit=1))
    assert await judgement(world, await ask(world, holder(), token())) == "approved"
    world.clock.seconds = NOW + later
    request = await ask(world, holder(1), token("n-2", now=NOW + later))

    assert await judgement(world, request) == expected


# Which enrollments count


async def test_an_enrollment_that_failed_keeps_its_place_until_the_window_is_full(
    world: World,
) -> None:
    requests = await tokens_of_one_device(world, 5)
    assert await judgement(world, requests[0]) == "approved"
    await failed(world, requests[0])

    for number, request in enumerate(requests[1:3], 2):
        assert await judgement(world, request) == "approved"
        assert places(world) == number
    assert await judgement(world, requests[3]) == "approved"  # in the place of the first
    assert places(world) == 3
    assert await judgement(world, requests[4]) == Reason.RATE_LIMITED


async def test_an_enrollment_whose_certificate_was_issued_keeps_its_place(world: World) -> None:
    requests = await tokens_of_one_device(world, 4)
    for request in requests[:3]:
        assert await judgement(world, request) == "approved"
        await issued(world, request)

    assert await judgement(world, requests[3]) == Reason.RATE_LIMITED


async def test_an_enrollment_that_a_later_gate_refused_gives_its_place_back(world: World) -> None:
    """The device was not healthy: by our own signed word it got nothing."""

    async def ill_at_first(_: DeviceQuestion) -> DeviceAnswer:
        return DeviceAnswer(allow=len(messages_of(world.bus, "ENROLL_0", ".verdict")) >= 3)

    world.accept(by_token(device_state=DeviceStateGate(ill_at_first, 5)))
    requests = await tokens_of_one_device(world, 7)
    results = [await judgement(world, request) for request in requests]

    assert results == [Reason.DEVICE_STATE_FAILED] * 3 + [*FULL]


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR, OPERATOR])
async def test_a_failure_that_no_issuer_signed_frees_nothing_and_is_reported(
    world: World, by: EventSigner
) -> None:
    requests = await tokens_of_one_device(world, 4)
    for request in requests[:3]:
        assert await judgement(world, request) == "approved"
    await failed(world, requests[0], by)
    before = counted("security_events", stage="outcome")

    assert await judgement(world, requests[3]) == Reason.RATE_LIMITED
    assert counted("security_events", stage="outcome") == before + 1


async def test_a_certificate_that_is_there_outweighs_nothing_else(world: World) -> None:
    """A refused request after an approval and a certificate would be two words of ours."""
    requests = await tokens_of_one_device(world, 4)
    for request in requests[:3]:
        assert await judgement(world, request) == "approved"
    await issued(world, requests[0])
    await failed(world, requests[1])

    assert await judgement(world, requests[3]) == "approved"
    kept = {entry.enrollment for entries in windows(world) for entry in entries}
    assert parse_subject(requests[0].subject)[0].prefix() in kept
    assert parse_subject(requests[1].subject)[0].prefix() not in kept


# Records that no validator wrote


def claimed(request: Stored, place: str, by: EventSigner) -> Message:
    """A record that gives the token to this very request."""
    event = ChallengeClaimed(
        request_sha256=request.sha256(),
        kind=SIGNED,
        enrollment=parse_subject(request.subject)[0].prefix(),
        spki_sha256="11" * 32,
        expires_at=UNTIL,
    )
    return signed_event(event, place, by)


FORGED_CLAIMS: dict[str, Callable[[Stored], Message]] = {
    "by a stranger": lambda request: claimed(request, claim_place(), STRANGER),
    "by an operator": lambda request: claimed(request, claim_place(), OPERATOR),
    "by an issuer": lambda request: claimed(request, claim_place(), ISSUING),
    "of another token": lambda request: claimed(request, claim_place("n-2"), VALIDATOR),
    "without a signature": lambda request: Message(
        claimed(request, claim_place(), VALIDATOR).payload,
        {"Scepstream-Type": "ChallengeClaimed"},
    ),
    "another event": lambda _: signed_event(
        DeviceCounted(request_sha256=REQUEST_SHA256, entries=()), claim_place(), VALIDATOR
    ),
    "no event": lambda _: Message(b"", {}),
    "not readable": lambda _: Message(b"\xff{", {"Scepstream-Type": "ChallengeClaimed"}),
}


@pytest.mark.parametrize("forged", FORGED_CLAIMS.values(), ids=FORGED_CLAIMS)
async def test_a_forged_replay_record_bars_nobody_and_is_reported(
    world: World, forged: Callable[[Stored], Message]
) -> None:
    """Whoever holds a validator's bus key can occupy the place, and nothing follows from it."""
    request, thief = [await ask(world, holder(each), token()) for each in range(2)]
    stored = await append(world.bus, claim_place(), forged(request))
    before = counted("security_events", stage="replay")

    assert await judgement(world, request) == "approved"
    assert counted("security_events", stage="replay") > before
    assert claims(world)[0] == stored
    assert [m.subject for m in claims(world)] == [claim_place(), claim_place(number=1)]
    assert await judgement(world, thief) == Reason.REPLAY


@pytest.mark.parametrize("number", [1, 7, 10**6])
async def test_records_planted_later_do_not_hide_who_holds_a_token(
    world: World, number: int
) -> None:
    request, thief = [await ask(world, holder(each), token()) for each in range(2)]
    assert await judgement(world, request) == "approved"
    await append(world.bus, claim_place(number=number), claimed(thief, claim_place(), STRANGER))

    assert await judgement(world, thief) == Reason.REPLAY
    assert await judgement(world, request) == "approved"


async def test_a_record_in_a_place_that_became_free_again_takes_no_token(world: World) -> None:
    """The forged record of before has left the log; the first authentic one still counts."""
    request, thief = [await ask(world, holder(each), token()) for each in range(2)]
    planted = await append(world.bus, claim_place(), Message(b"", {}))
    assert await judgement(world, request) == "approved"
    del world.bus.streams[REPLAYS].messages[planted.sequence]

    assert await judgement(world, thief) == Reason.REPLAY


async def test_however_many_places_are_planted_a_token_can_be_used(world: World) -> None:
    for number in range(40):
        await append(world.bus, claim_place(number=number), Message(b"", {}))
    request, thief = [await ask(world, holder(each), token()) for each in range(2)]

    assert await judgement(world, request) == "approved"
    assert await judgement(world, thief) == Reason.REPLAY


EMPTY_WINDOW = DeviceCounted(request_sha256=REQUEST_SHA256, entries=())
FORGED_WINDOWS: dict[str, Message] = {
    "by a stranger": signed_event(EMPTY_WINDOW, window_place(), STRANGER),
    "by an operator": signed_event(EMPTY_WINDOW, window_place(), OPERATOR),
    "by an issuer": signed_event(EMPTY_WINDOW, window_place(), ISSUING),
    "of another device": signed_event(EMPTY_WINDOW, window_place("other"), VALIDATOR),
    "without a signature": encode(EMPTY_WINDOW),
    "no event": Message(b"", {}),
}


@pytest.mark.parametrize("forged", FORGED_WINDOWS.values(), ids=FORGED_WINDOWS)
async def test_a_forged_window_is_passed_over_and_reported(world: World, forged: Message) -> None:
    await world.bus.append(window_place(), forged)
    request = await ask(world, holder(), token())
    before = counted("security_events", stage="device")

    assert await judgement(world, request) == "approved"
    assert counted("security_events", stage="device") > before
    assert len(await window_of(world, SUBJECT)) == 1


@pytest.mark.parametrize("forged", FORGED_WINDOWS.values(), ids=FORGED_WINDOWS)
async def test_a_forged_window_takes_no_entry_away(world: World, forged: Message) -> None:
    """An empty one would open the gate again and again."""
    world.accept(by_token(limit=1))
    first, second = await tokens_of_one_device(world, 2)
    assert await judgement(world, first) == "approved"
    await world.bus.append(window_place(number=1), forged)

    assert await judgement(world, second) == Reason.RATE_LIMITED


# Records that leave the log


async def test_the_record_of_a_token_outlives_it_by_ten_minutes(world: World) -> None:
    first = await ask(world, holder(), token())
    second = await ask(world, holder(1), token())
    assert await judgement(world, first) == "approved"
    world.clock.seconds = UNTIL + MARGIN - 1

    assert await judgement(world, second) == Reason.REPLAY


@pytest.mark.parametrize("late", [0.2, 0.5, 0.999, 1, 2, 30, DAY])
async def test_who_is_judged_when_the_record_may_have_left_is_refused(
    world: World, late: float
) -> None:
    """Both asked in time, but nobody judged the second until the first one's record had gone."""
    world.clock.seconds = NOW + 0.1
    first = await ask(world, holder(), token())
    second = await ask(world, holder(1), token())
    assert await judgement(world, first) == "approved"
    world.clock.seconds = UNTIL + MARGIN + late
    await world.bus.get_last(REPLAYS, claim_place())
    assert claims(world) == []

    assert await judgement(world, second) == Reason.EXPIRED


async def test_who_is_judged_late_but_was_first_is_not_refused_for_it(world: World) -> None:
    """A redelivery after an outage of hours: the record is of the time before it."""
    request = await ask(world, holder(), token())
    assert await judgement(world, request) == "approved"
    world.bus.streams["ENROLL_0"].messages.popitem()
    world.clock.seconds = UNTIL + MARGIN - 1

    assert await judgement(world, request) == "approved"


async def test_a_window_outlives_its_entries(world: World) -> None:
    """What is still counted must not have left the log with what is not."""
    world.accept(by_token(limit=1))
    assert await judgement(world, await ask(world, holder(), token())) == "approved"
    world.clock.seconds = NOW + DAY - 1
    second = await ask(world, holder(1), token("n-2", now=NOW + DAY - 1))
    world.clock.seconds = NOW + DAY + 1800  # judged half an hour later

    assert await judgement(world, second) == Reason.RATE_LIMITED


# Deaths and outages


def through(world: World, trouble: Trouble) -> RequestConsumer:
    """A validator that meets trouble at one of its calls."""
    return on_bus(world, BusThrough(world.bus, trouble))


async def outlived(world: World, trouble: Trouble, request: Stored) -> None:
    """Judged by one that dies, then by another to which the request is handed out again."""
    try:
        await through(world, trouble).handle(request)
    except DiedError:
        await on_bus(world, world.bus).handle(request)


async def window_of(world: World, subject: str) -> Sequence[CountedEnrollment]:
    stored = await world.bus.get_last(DEVICES, window_place(subject, number="*"))
    assert stored is not None
    return authenticate_as(DeviceCounted, stored, TRUSTED_VALIDATORS).entries


async def test_a_validator_may_die_before_or_after_any_of_its_calls(world: World) -> None:
    """Another one ends what it began: one approval, one place, and the token is taken."""
    for at in itertools.count():
        trouble, name = Trouble(at, DiedError), f"mortal-{at}"
        request = await ask(world, holder(), token(name, subject=name))
        thief = await ask(world, holder(1), token(name, subject=name))
        await outlived(world, trouble, request)

        assert result(world, request) == "approved"
        assert await judgement(world, thief) == Reason.REPLAY
        assert len(await window_of(world, name)) == 1
        if not trouble.happened:
            break
    assert at > 8


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_thief_gains_nothing_by_the_death_of_a_validator(world: World, seed: int) -> None:
    """It asks at the same moment on three other validators: whoever was first is the only one."""
    for at in itertools.count():
        trouble, name = Trouble(at, DiedError), f"stolen-{at}"
        request, *thieves = [
            await ask(world, holder(each), token(name, subject=name)) for each in range(4)
        ]
        await asyncio.gather(
            outlived(world, trouble, request), evaluate_all(replicas(world, 3, seed), thieves)
        )
        results = sorted(result(world, each) for each in (request, *thieves))

        assert results == ["approved", *[Reason.REPLAY] * 3]
        assert len(await window_of(world, name)) == 1
        if not trouble.happened:
            break


async def test_a_call_whose_answer_is_lost_is_made_again_and_counts_once(world: World) -> None:
    """The bus may have done it or not: the worker handles the request once more."""
    for at in itertools.count():
        trouble, name = Trouble(at, lambda: BusUnavailableError("lost")), f"lost-{at}"
        request = await ask(world, holder(), token(name, subject=name))
        validator = through(world, trouble)
        try:
            await validator.handle(request)
        except BusUnavailableError:
            await validator.handle(request)

        assert result(world, request) == "approved"
        assert len(await window_of(world, name)) == 1
        if not trouble.happened:
            break
    assert at > 8


def stormy(numbers: random.Random) -> Step:
    """Others get turns, answers are lost, and now and then a validator dies."""

    async def step() -> None:
        for _ in range(numbers.randrange(3)):
            await asyncio.sleep(0)
        chance = numbers.random()
        if chance < 0.03:
            raise DiedError
        if chance < 0.06:
            raise BusUnavailableError("lost")

    return step


async def worked_off(world: World, requests: Sequence[Stored], seed: int) -> list[str]:
    """All at once, each handed out again until a validator came to its end; the results."""

    async def one(request: Stored, numbers: random.Random) -> str:
        while True:
            try:
                await on_bus(world, BusThrough(world.bus, stormy(numbers))).handle(request)
            except (DiedError, BusUnavailableError):
                continue
            return str(result(world, request))

    seeds = (random.Random(f"{seed} {number}") for number in itertools.count())
    return await asyncio.gather(*map(one, requests, seeds))


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_dies_each_token_has_one_holder_and_each_device_its_places(
    world: World, seed: int
) -> None:
    """Three devices with four tokens each, every token brought by three keys.

    Then some of what was approved comes to nothing, and so many places are free again.
    """
    devices = [f"storm-{number}" for number in range(3)]
    keys = itertools.count(200)
    asked = [
        (subject, nonce, await ask(world, holder(next(keys)), token(nonce, subject=subject)))
        for subject in devices
        for nonce in (f"{subject}-{number}" for number in range(4))
        for _ in range(3)
    ]
    results = await worked_off(world, [request for *_, request in asked], seed)
    approved = [each for each, found in zip(asked, results, strict=True) if found == "approved"]
    assert sorted(subject for subject, *_ in approved) == sorted(devices * 3)
    assert len({nonce for _, nonce, _ in approved}) == len(approved)

    lost = random.Random(seed).sample(approved, 4)
    for _, _, request in lost:
        await failed(world, request)
    later = [
        await ask(world, holder(next(keys)), token(f"later-{subject}-{number}", subject=subject))
        for subject in devices
        for number in range(4)
    ]
    results = await worked_off(world, later, seed + 1000)

    assert results.count("approved") == len(lost)
    assert places(world) == len(devices) * 3


async def test_a_record_that_cannot_be_read_yet_decides_nothing(world: World) -> None:
    """A follower may lag behind the append that refused ours: the request waits."""
    request = await ask(world, holder(), token())
    validator = on_bus(world, Lagging(world.bus, lambda: turn(1)))

    for _ in range(2):  # at the first delivery it is its own append that it cannot read
        with pytest.raises(BusUnavailableError):
            await validator.handle(request)
    assert messages_of(world.bus, "ENROLL_0", ".verdict") == []
    assert len(claims(world)) == 1
    assert await judgement(world, request) == "approved"


class Lagging(BusThrough):
    """A follower that has none of the records yet, and a leader that cannot be asked."""

    async def get_last_or_leader(self, stream: str, subject: str) -> Stored | None:
        self._ask(stream)
        return await super().get_last_or_leader(stream, subject)

    async def get_next_or_leader(self, stream: str, subject: str, sequence: int) -> Stored | None:
        self._ask(stream)
        return await super().get_next_or_leader(stream, subject, sequence)

    def _ask(self, stream: str) -> None:
        if stream == REPLAYS:
            raise BusUnavailableError("a replica of the stream is behind")
