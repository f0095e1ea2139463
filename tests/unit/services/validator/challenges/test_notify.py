"""An operator's service hears of every certificate and every failure, where it wants to."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.notify import NotificationWorkers
from shared.bus.topology import NOTIFIER, notifiers
from shared.log.envelope import EventSigner, Stored
from shared.log.events.enrollment import CertificateIssued, EnrollmentApproved, EnrollmentRejected
from shared.log.reasons import Reason
from shared.log.subjects import parse_subject
from shared.runtime.endpoint import Endpoint
from shared.runtime.worker import MAX_DELIVERIES
from tests.fakes.memory_bus import MemoryConsumer
from tests.support.accesses import accepting
from tests.support.enrollers import (
    ask,
    failed,
    holder,
    issued,
    judged,
    judgement,
)
from tests.support.messages import TRANSACTION, Identity
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUER,
    NOW,
    OPERATOR,
    PROFILE,
    SERIAL,
    STRANGER,
    VALIDATOR,
    counted,
    messages_of,
    turn,
    until,
)
from tests.unit.services.validator.http_services import Posted, Service, http, serving

PASSWORD = "s3cret-of-the-profile"
SECRET = b"hmac-s3cret-of-the-hook"
FAR = NOW + 3600.0


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(Service(say=http(204))) as found:
        yield found


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, service: Service
) -> AsyncIterator[World]:
    """A profile with a service that is told, and one, "quiet", without."""
    async with validating(device, ra, ec_key) as found:
        wanted = accepting(passwords=(PASSWORD,), notify=Endpoint(service.url, 10.0, secret=SECRET))
        settings = found.evaluator.live.current
        settings.access.update({PROFILE: wanted, "quiet": accepting(passwords=(PASSWORD,))})
        settings.policies["quiet"] = settings.policies[PROFILE]
        (spec,) = notifiers(["0"], [PROFILE])
        found.bus.consumers[f"{spec.stream}/{NOTIFIER}"] = MemoryConsumer(spec.stream, spec.filters)
        yield found


@asynccontextmanager
async def telling(world: World) -> AsyncIterator[None]:
    working = NotificationWorkers(world.evaluator, lambda: FAR)
    await working.reconcile(["0"])
    yield
    await working.stop()


def done(world: World) -> bool:
    """Whether the notifier has seen and settled all that there is."""
    consumer = world.bus.consumers[f"ENROLL_0/{NOTIFIER}"]
    seen = consumer.position >= world.bus.streams["ENROLL_0"].last
    return seen and not consumer.out and not consumer.again


async def told(world: World) -> None:
    """Let it tell everything there is to tell."""
    async with telling(world):
        await until(lambda: done(world))


def described(facts: Any) -> dict[str, Any]:
    return {
        "subject": facts.subject,
        "sans": list(facts.sans),
        "key_type": facts.key_type,
        "key_bits": facts.key_bits,
        "spki_sha256": facts.spki_sha256,
        "sha256": facts.csr_sha256,
    }


def identified(request: Stored) -> dict[str, Any]:
    """What says which enrollment it is."""
    return {
        "id": parse_subject(request.subject)[0].prefix(),
        "profile": PROFILE,
        "transaction_id": TRANSACTION.decode(),
    }


# What is told


async def test_a_certificate_is_told_with_issuer_serial_and_end(
    world: World, service: Service
) -> None:
    request = await ask(world, holder(), PASSWORD)
    verdict = await judged(world, request)
    assert isinstance(verdict, EnrollmentApproved)
    await issued(world, request)
    await told(world)

    (posted,) = service.posted
    assert posted.json == identified(request) | {
        "event": "issued",
        "csr": described(verdict.facts),
        "issuer": ISSUER,
        "serial": SERIAL,
        "not_after": NOW + 86400,
    }


async def test_a_refusal_is_told_with_its_reason(world: World, service: Service) -> None:
    request = await ask(world, holder(), "wrong")
    verdict = await judged(world, request)
    assert isinstance(verdict, EnrollmentRejected)
    await told(world)

    (posted,) = service.posted
    assert posted.json == identified(request) | {
        "event": "failed",
        "csr": described(verdict.facts),
        "reason": "challenge_wrong",
        "detail": verdict.detail,
    }


async def test_a_certificate_that_could_not_be_made_is_told(world: World, service: Service) -> None:
    request = await ask(world, holder(), PASSWORD)
    verdict = await judged(world, request)
    await failed(world, request)
    await told(world)

    (posted,) = service.posted
    assert posted.json == identified(request) | {
        "event": "failed",
        "csr": described(verdict.facts),
        "reason": "poison",
        "detail": "the CA is down",
    }


async def test_a_request_that_could_not_be_read_is_told_without_its_csr(
    world: World, service: Service
) -> None:
    request = await ask(world, holder(), PASSWORD)
    await world.consumer.give_up(request)
    await told(world)

    (posted,) = service.posted
    assert (posted.json["event"], posted.json["csr"]) == ("failed", None)
    assert posted.json["reason"] == Reason.POISON.value


async def test_neither_an_approval_nor_a_hold_is_an_end(world: World, service: Service) -> None:
    await judged(world, await ask(world, holder(), PASSWORD))
    world.allow(manual=True)
    await world.consumer.handle(await ask(world, holder(1), PASSWORD))
    assert messages_of(world.bus, "ENROLL_0", ".hold")
    await told(world)

    assert service.posted == []


async def test_a_notification_is_signed_at_the_time_it_is_sent(
    world: World, service: Service
) -> None:
    await judged(world, await ask(world, holder(), "wrong"))
    await told(world)

    (posted,) = service.posted
    stamp = posted.headers["scepstream-timestamp"]
    expected = hmac.new(SECRET, stamp.encode() + b"." + posted.body, hashlib.sha256).hexdigest()
    assert stamp == str(int(FAR))
    assert posted.headers["scepstream-signature"] == f"sha256={expected}"
    assert posted.headers["content-type"] == "application/json"


async def test_no_challenge_is_told(world: World, service: Service) -> None:
    for number, password in enumerate((PASSWORD, "almost-the-right-one")):
        request = await ask(world, holder(number), password)
        if await judgement(world, request) == "approved":
            await issued(world, request)
    await told(world)

    assert len(service.posted) == 2
    for posted in service.posted:
        assert PASSWORD.encode() not in posted.body
        assert b"almost-the-right-one" not in posted.body


# Who is told


async def test_only_the_profile_that_wants_it_is_told_of(world: World, service: Service) -> None:
    for number, profile in enumerate(("quiet", PROFILE, "quiet")):
        await judged(world, await ask(world, holder(number), "wrong", profile=profile))
    await told(world)

    assert [posted.json["profile"] for posted in service.posted] == [PROFILE]


async def test_a_profile_that_wants_it_no_more_is_not_told_of(
    world: World, service: Service
) -> None:
    await judged(world, await ask(world, holder(), "wrong"))
    async with telling(world):
        access = world.evaluator.live.current.access
        access[PROFILE] = accepting(passwords=(PASSWORD,))
        await until(lambda: done(world))

    assert service.posted == []
    assert messages_of(world.bus, "DEAD_LETTERS") == []


async def test_where_no_profile_wants_it_nothing_is_read(world: World, service: Service) -> None:
    world.accept(accepting(passwords=(PASSWORD,)))
    await judged(world, await ask(world, holder(), "wrong"))
    async with telling(world):
        await turn(50)

    assert world.bus.consumers[f"ENROLL_0/{NOTIFIER}"].position == 0
    assert service.posted == []


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR, OPERATOR])
async def test_an_end_that_no_issuer_wrote_is_reported_and_not_told(
    world: World, service: Service, by: EventSigner
) -> None:
    request = await ask(world, holder(), PASSWORD)
    await judged(world, request)
    await issued(world, request, by)
    before = counted("security_events", stage="outcome")
    await told(world)

    assert service.posted == []
    assert counted("security_events", stage="outcome") == before + 1


# Until it is told


async def test_what_was_not_taken_is_told_again_until_it_is(world: World, service: Service) -> None:
    answers = iter([500, 503, 404, 302, 201])

    async def ever_better(_: Posted, writer: asyncio.StreamWriter) -> None:
        writer.write(http(next(answers), location=service.url))

    service.answer = ever_better
    await judged(world, await ask(world, holder(), "wrong"))
    await told(world)

    assert len(service.posted) == 5
    assert len({posted.body for posted in service.posted}) == 1
    assert next(answers, None) is None


async def test_a_service_that_was_away_is_told_when_it_is_back(
    world: World, service: Service
) -> None:
    """It closes every connection at first, without a word."""
    away = [True] * 3

    async def at_first(_: Posted, writer: asyncio.StreamWriter) -> None:
        if not away:
            writer.write(http(200))
            return
        away.pop()

    service.answer = at_first
    await judged(world, await ask(world, holder(), "wrong"))
    await told(world)

    assert len(service.posted) == 4


async def test_a_service_that_never_answers_is_left_in_time_and_told_again(
    world: World, service: Service
) -> None:
    """Drop by drop it would keep the notifier for ever."""
    first, never = [True], asyncio.Event()

    async def drops(_: Posted, writer: asyncio.StreamWriter) -> None:
        if not first:
            writer.write(http(200))
            return
        first.pop()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")
        while not never.is_set():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    service.answer = drops
    access = world.evaluator.live.current.access
    access[PROFILE] = accepting(passwords=(PASSWORD,), notify=Endpoint(service.url, 0.3))
    await judged(world, await ask(world, holder(), "wrong"))
    await told(world)

    assert len(service.posted) == 2


async def test_one_end_that_cannot_be_told_does_not_hold_up_the_others(
    world: World, service: Service
) -> None:
    requests = [await ask(world, holder(number), "wrong") for number in range(3)]
    for request in requests:
        await judged(world, request)
    stuck = identified(requests[1])["id"]

    async def not_that_one(posted: Posted, writer: asyncio.StreamWriter) -> None:
        writer.write(http(500 if posted.json["id"] == stuck else 200))

    service.answer = not_that_one
    await told(world)

    told_of = [posted.json["id"] for posted in service.posted]
    assert told_of.count(stuck) == MAX_DELIVERIES
    for request in (requests[0], requests[2]):
        assert told_of.count(identified(request)["id"]) == 1


async def test_what_is_never_taken_leaves_a_dead_letter_and_changes_no_verdict(
    world: World, service: Service
) -> None:
    service.say = http(500)
    await judged(world, await ask(world, holder(), "wrong"))
    before = messages_of(world.bus, "ENROLL_0")
    await told(world)

    (letter,) = messages_of(world.bus, "DEAD_LETTERS")
    (verdict,) = world.verdicts()
    assert letter.subject == f"dead.validator.ENROLL_0.{verdict.sequence}"
    assert messages_of(world.bus, "ENROLL_0") == before
    assert CertificateIssued.__name__.encode() not in letter.payload


async def test_a_profile_that_wants_it_after_a_reload_is_told_of(
    world: World, service: Service
) -> None:
    wanted = world.evaluator.live.current.access[PROFILE]
    world.accept(accepting(passwords=(PASSWORD,)))
    await judged(world, await ask(world, holder(), "wrong"))
    working = NotificationWorkers(world.evaluator, lambda: FAR)
    await working.reconcile(["0"])
    world.accept(wanted)
    await working.reconcile(["0"])  # as a reload does
    await until(lambda: done(world))
    await working.stop()

    assert [posted.json["profile"] for posted in service.posted] == [PROFILE]
