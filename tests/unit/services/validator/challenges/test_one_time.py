"""An operator's challenge for one device: found by its digest, held by the first key it lets in."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.facts import names_sha256
from shared.log.envelope import EventSigner, Message, Stored, authenticate_as
from shared.log.events.certificates import CertificateStatus, CertificateStatusChanged
from shared.log.events.commands import ChallengeCancelled, ChallengeCreated, RevocationReason
from shared.log.events.enrollment import EnrollmentRejected
from shared.log.events.state import ChallengeClaimed
from shared.log.one_time import ONE_TIME, one_time_digest, write_one_time
from shared.log.reasons import Reason
from shared.log.streams import OPS
from shared.log.subjects import (
    certificate_status,
    key_issued,
    one_time_cancelled,
    one_time_created,
    parse_subject,
    replay_record,
)
from tests.fakes.bus_through import BusThrough, Trouble, racing
from tests.support.accesses import accepting
from tests.support.enrollers import (
    ask,
    asked,
    claims,
    dns,
    evaluate_all,
    failed,
    holder,
    issued,
    judgement,
    on_bus,
    replicas,
    result,
    verdict,
)
from tests.support.messages import (
    COMMON_NAME,
    PRINTABLE,
    TRANSACTION,
    UTF8,
    Identity,
    name,
    tlv,
)
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUER,
    ISSUING,
    NANOSECONDS,
    NOW,
    OPERATOR,
    PIN,
    PROFILE,
    SERIAL,
    STRANGER,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append,
    append_signed,
    counted,
    messages_of,
    signed_event,
)
from tests.unit.services.validator.records import record

DAY = 86400
CHALLENGE = write_one_time("0123456789ABCDEFGHJKMNPQR")
OTHER = write_one_time("1123456789ABCDEFGHJKMNPQR")


class DiedError(Exception):
    """Stands for kill -9."""


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        found.accept(accepting(passwords=("s3cret",), by_one_time=True))
        yield found


def made(
    challenge: str = CHALLENGE, *, by: EventSigner = OPERATOR, place: str = "", **changes: Any
) -> tuple[str, Message]:
    """(subject, message) of a challenge for a day; `changes` alter the event."""
    values = {"profile": PROFILE, "expires_at": NOW + DAY, "operator": "op"} | changes
    event = ChallengeCreated(**values)
    place = place or one_time_created(PROFILE, one_time_digest(PROFILE, challenge))
    return place, signed_event(event, place, by)


async def create(world: World, challenge: str = CHALLENGE, **changes: Any) -> Stored:
    return await append(world.bus, *made(challenge, **changes))


async def cancel(world: World, challenge: str = CHALLENGE, by: EventSigner = OPERATOR) -> Stored:
    place = one_time_cancelled(PROFILE, one_time_digest(PROFILE, challenge), 0)
    event = ChallengeCancelled(profile=PROFILE, operator="op")
    return await append(world.bus, place, signed_event(event, place, by))


def detail(world: World, request: Stored) -> str:
    event = verdict(world, request)
    assert isinstance(event, EnrollmentRejected)
    return event.detail


# Which challenges are good


async def test_a_challenge_lets_one_enrollment_in_and_says_who_made_it(world: World) -> None:
    await create(world, cn="device")
    request = await ask(world, holder(), CHALLENGE)

    assert await judgement(world, request) == "approved"
    claim = verdict(world, request).claim
    assert claim is not None
    assert (claim.issuer, claim.subject, claim.device) == ("operator", "op", "device")
    assert claim.expires_at == NOW + DAY
    (stored,) = claims(world)
    assert claim.record == f"{stored.subject.removesuffix('.0')}.*"
    assert stored.subject == replay_record(ONE_TIME, one_time_digest(PROFILE, CHALLENGE), 0)
    record = authenticate_as(ChallengeClaimed, stored, TRUSTED_VALIDATORS)
    assert (record.kind, record.expires_at) == (ONE_TIME, NOW + DAY)


@pytest.mark.parametrize(
    "given",
    [OTHER, CHALLENGE.lower(), CHALLENGE[:-1], CHALLENGE + "Q", CHALLENGE.replace("-", ""), "x"],
)
async def test_a_challenge_that_nobody_made_is_refused(world: World, given: str) -> None:
    await create(world)
    request = await ask(world, holder(), given)

    assert await judgement(world, request) == Reason.CHALLENGE_WRONG
    assert claims(world) == []


@pytest.mark.parametrize("given", [f" {CHALLENGE}", f"{CHALLENGE} ", f"{CHALLENGE}\n"])
async def test_blanks_around_a_challenge_make_it_another_one(world: World, given: str) -> None:
    world.accept(accepting(by_one_time=True))
    await create(world)

    assert await judgement(world, await ask(world, holder(), given)) == Reason.CHALLENGE_WRONG


async def test_a_challenge_of_another_profile_is_not_known_here(world: World) -> None:
    place = one_time_created("second", one_time_digest("second", CHALLENGE))
    await create(world, profile="second", place=place)
    request = await ask(world, holder(), CHALLENGE)

    assert await judgement(world, request) == Reason.CHALLENGE_WRONG


async def test_a_challenge_that_names_another_profile_is_not_good_where_it_stands(
    world: World,
) -> None:
    await create(world, profile="second")

    assert await judgement(world, await ask(world, holder(), CHALLENGE)) == Reason.CHALLENGE_WRONG


async def test_a_challenge_is_good_for_the_profile_it_was_made_for_alone(world: World) -> None:
    settings = world.evaluator.live.current
    settings.policies["second"] = world.policy
    settings.access["second"] = settings.access[PROFILE]
    await create(world)
    elsewhere = await ask(world, holder(), CHALLENGE, profile="second")

    assert await judgement(world, elsewhere) == Reason.CHALLENGE_WRONG
    assert await judgement(world, await ask(world, holder(), CHALLENGE)) == "approved"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (NOW - 1, Reason.EXPIRED),
        (NOW, Reason.EXPIRED),
        (NOW + 1, "approved"),
    ],
)
async def test_a_challenge_ends_when_it_says(
    world: World, ends: int, expected: Reason | str
) -> None:
    await create(world, expires_at=ends)

    assert await judgement(world, await ask(world, holder(), CHALLENGE)) == expected
    assert len(claims(world)) == (expected == "approved")


FORGED: dict[str, Callable[[], Message]] = {
    "by a stranger": lambda: made(by=STRANGER)[1],
    "by a validator": lambda: made(by=VALIDATOR)[1],
    "by an issuer": lambda: made(by=ISSUING)[1],
    "of another challenge": lambda: made(OTHER)[1],
    "without a signature": lambda: Message(
        made()[1].payload, {"Scepstream-Type": "ChallengeCreated"}
    ),
    "another event": lambda: signed_event(
        ChallengeCancelled(profile=PROFILE, operator="op"), made()[0], OPERATOR
    ),
    "no event": lambda: Message(b"{}", {}),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
async def test_a_challenge_that_no_operator_made_is_refused_and_reported(
    world: World, forged: Callable[[], Message]
) -> None:
    await append(world.bus, made()[0], forged())
    before = counted("security_events", stage="one_time")

    assert await judgement(world, await ask(world, holder(), CHALLENGE)) == Reason.CHALLENGE_WRONG
    assert counted("security_events", stage="one_time") == before + 1
    assert claims(world) == []


# For which device


TWO_NAMES = name((COMMON_NAME, UTF8, b"device"), (COMMON_NAME, UTF8, b"admin"))


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (name((COMMON_NAME, UTF8, b"device")), "approved"),
        (name((COMMON_NAME, PRINTABLE, b"device"), ("2.5.4.10", UTF8, b"Lab")), "approved"),
        (name((COMMON_NAME, UTF8, b"Device")), Reason.CLAIM_MISMATCH),
        (name((COMMON_NAME, UTF8, b"device ")), Reason.CLAIM_MISMATCH),
        (name((COMMON_NAME, UTF8, b"other")), Reason.CLAIM_MISMATCH),
        (name(("2.5.4.10", UTF8, b"device")), Reason.CLAIM_MISMATCH),
        (TWO_NAMES, Reason.CLAIM_MISMATCH),
    ],
)
async def test_a_challenge_for_a_common_name_is_good_for_no_other(
    world: World, subject: bytes, expected: Reason | str
) -> None:
    await create(world, cn="device")
    request = await ask(world, holder(), CHALLENGE, subject=subject)

    assert await judgement(world, request) == expected
    assert len(claims(world)) == (expected == "approved")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.example", "b.example"), "approved"),
        (("b.example", "a.example"), "approved"),
        (("A.Example", "B.EXAMPLE"), "approved"),
        (("a.example", "a.example", "b.example"), "approved"),
        (("a.example",), Reason.CLAIM_MISMATCH),
        (("a.example", "b.example", "c.example"), Reason.CLAIM_MISMATCH),
        ((), Reason.CLAIM_MISMATCH),
    ],
)
async def test_a_challenge_for_names_is_good_for_these_names_alone(
    world: World, names: tuple[str, ...], expected: Reason | str
) -> None:
    await create(world, sans=("dns:a.example", "dns:b.example"))
    request = await ask(world, holder(), CHALLENGE, *map(dns, names), subject=called("a.example"))

    assert await judgement(world, request) == expected


def called(*common_names: str, tag: int = UTF8) -> bytes:
    return name(*((COMMON_NAME, tag, each.encode()) for each in common_names))


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (called(), "approved"),
        (called("a.example"), "approved"),
        (called("B.Example"), "approved"),
        (called("device@a.example"), "approved"),
        (called("device"), Reason.CLAIM_MISMATCH),
        (called("payments.example"), Reason.CLAIM_MISMATCH),
        (called("dns:a.example"), Reason.CLAIM_MISMATCH),
        (called("a.example "), Reason.CLAIM_MISMATCH),
        (called("a.example", "b.example"), Reason.CLAIM_MISMATCH),
        (called("a.example", "payments.example"), Reason.CLAIM_MISMATCH),
        (called("a.example", tag=0x16), Reason.CLAIM_MISMATCH),
    ],
)
async def test_a_challenge_for_sans_alone_takes_no_other_common_name(
    world: World, subject: bytes, expected: Reason | str
) -> None:
    """Else the challenge that was made for one name does for any."""
    sans = ("dns:a.example", "dns:b.example", "rfc822:device@a.example")
    entries = dns("a.example"), dns("b.example"), tlv(0x81, b"device@a.example")
    await create(world, sans=sans)
    request = await ask(world, holder(), CHALLENGE, *entries, subject=subject)

    assert await judgement(world, request) == expected
    assert len(claims(world)) == (expected == "approved")


async def test_a_challenge_for_a_common_name_and_sans_is_good_for_that_name(world: World) -> None:
    await create(world, cn="device", sans=("dns:a.example",))
    wrong = await ask(world, holder(), CHALLENGE, dns("a.example"), subject=called("a.example"))
    assert await judgement(world, wrong) == Reason.CLAIM_MISMATCH

    request = await ask(world, holder(1), CHALLENGE, dns("a.example"))
    assert await judgement(world, request) == "approved"


async def test_the_kind_of_a_name_counts(world: World) -> None:
    await create(world, sans=("dns:device@a.example",))
    request = await ask(world, holder(), CHALLENGE, tlv(0x81, b"device@a.example"))

    assert await judgement(world, request) == Reason.CLAIM_MISMATCH


async def test_a_challenge_for_a_common_name_alone_allows_no_further_names(world: World) -> None:
    await create(world, cn="device")
    request = await ask(world, holder(), CHALLENGE, dns("payments.example"))

    assert await judgement(world, request) == Reason.CLAIM_MISMATCH


async def test_a_challenge_for_any_device_takes_any_names(world: World) -> None:
    await create(world)
    request = await ask(world, holder(), CHALLENGE, dns("payments.example"), subject=TWO_NAMES)

    assert await judgement(world, request) == "approved"


@pytest.mark.parametrize(
    ("bound", "names"),
    [({"cn": "device"}, ()), ({"sans": ("dns:device",)}, ("device",))],
    ids=["for a name", "for a SAN"],
)
async def test_a_challenge_for_a_device_allows_no_unit_unless_the_profile_does(
    world: World, bound: dict[str, Any], names: tuple[str, ...]
) -> None:
    subject = name((COMMON_NAME, UTF8, b"device"), ("2.5.4.11", UTF8, b"Domain Admins"))
    await create(world, **bound)
    refused = await ask(world, holder(), CHALLENGE, *map(dns, names), subject=subject)
    assert await judgement(world, refused) == Reason.CLAIM_MISMATCH

    world.accept(accepting(by_one_time=True, attributes=frozenset({"OU"})))
    request = await ask(world, holder(1), CHALLENGE, *map(dns, names), subject=subject)
    assert await judgement(world, request) == "approved"


async def test_a_challenge_for_any_device_takes_any_subject(world: World) -> None:
    subject = name((COMMON_NAME, UTF8, b"device"), ("2.5.4.11", UTF8, b"Domain Admins"))
    await create(world)

    assert await judgement(world, await ask(world, holder(), CHALLENGE, subject=subject)) == (
        "approved"
    )


async def test_who_asks_for_the_wrong_names_does_not_use_it_up(world: World) -> None:
    await create(world, cn="device")
    wrong = await ask(world, holder(), CHALLENGE, subject=TWO_NAMES)
    assert await judgement(world, wrong) == Reason.CLAIM_MISMATCH

    assert await judgement(world, await ask(world, holder(1), CHALLENGE)) == "approved"


# Once


@pytest.mark.parametrize("seed", range(3))
async def test_of_fifty_keys_with_one_challenge_one_is_let_in(world: World, seed: int) -> None:
    await create(world)
    requests = [await ask(world, holder(number), CHALLENGE) for number in range(50)]
    await evaluate_all(replicas(world, 4, seed), requests)
    results = [result(world, request) for request in requests]

    assert results.count("approved") == 1
    assert results.count(Reason.REPLAY) == 49


async def test_another_request_of_the_same_key_is_a_second_use(world: World) -> None:
    await create(world)
    assert await judgement(world, await ask(world, holder(), CHALLENGE)) == "approved"
    other = await ask(world, holder(), CHALLENGE, dns("device.example"))

    assert await judgement(world, other) == Reason.REPLAY


async def test_a_retry_is_no_second_use(world: World) -> None:
    await create(world)
    first = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, first) == "approved"
    await world.consumer.handle(first)
    await failed(world, first)
    again = await ask(world, holder(), CHALLENGE, attempt=1)

    assert await judgement(world, again) == "approved"
    assert len(claims(world)) == 2  # the attempt that failed, and the one after it


async def test_a_challenge_stays_used_when_its_enrollment_failed(world: World) -> None:
    await create(world)
    first = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, first) == "approved"
    await failed(world, first)

    assert await judgement(world, await ask(world, holder(1), CHALLENGE)) == Reason.REPLAY


async def test_a_challenge_whose_certificate_was_revoked_makes_no_second_one(
    world: World,
) -> None:
    """Its one use was that certificate: the same CSR under a new transactionID is not a retry."""
    await create(world)
    first = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, first) == "approved"
    await issued(world, first)
    await on_record(world, first)
    again = await ask(world, holder(), CHALLENGE, transaction=b"another")
    assert await judgement(world, again) == "approved"
    assert getattr(verdict(world, again), "existing", None) == SERIAL
    place = certificate_status(ISSUER, SERIAL, 0)
    revoked = CertificateStatusChanged(
        request_sha256=first.sha256(), serial=SERIAL, ca_spki_sha256=PIN, operator="op",
        reason=RevocationReason.CESSATION_OF_OPERATION, revoked_at=NOW,
        status=CertificateStatus.REVOKED, command=1,
    )  # fmt: skip
    await append_signed(world.bus, place, revoked, ISSUING)
    last = await ask(world, holder(), CHALLENGE, transaction=b"a third")

    assert await judgement(world, last) == Reason.REPLAY


async def on_record(world: World, request: Stored) -> None:
    """What the issuer's index says of the certificate that this request got."""
    csr = asked(holder(), CHALLENGE).opened
    event = record(
        request_sha256=request.sha256(),
        enrollment=parse_subject(request.subject)[0].prefix(),
        spki_sha256=csr.facts.spki_sha256,
        names_sha256=names_sha256(csr.csr),
        not_before=NOW,
        not_after=NOW + 300 * DAY,
    )
    place = key_issued(event.spki_sha256, ISSUER, SERIAL)
    await append_signed(world.bus, place, event, ISSUING)


async def test_a_request_in_time_is_good_however_late_it_is_judged_again(world: World) -> None:
    await create(world, expires_at=NOW + 10)
    request = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, request) == "approved"
    world.bus.streams["ENROLL_0"].messages.popitem()
    world.clock.seconds = NOW + 500

    assert await judgement(world, request) == "approved"


@pytest.mark.parametrize("late", [0.2, 1, DAY])
async def test_who_is_judged_when_the_record_may_have_left_is_refused(
    world: World, late: float
) -> None:
    await create(world, expires_at=NOW + 10)
    world.clock.seconds = NOW + 0.1
    first = await ask(world, holder(), CHALLENGE)
    second = await ask(world, holder(1), CHALLENGE)
    assert await judgement(world, first) == "approved"
    world.clock.seconds = NOW + 610 + late

    assert await judgement(world, second) == Reason.EXPIRED


async def test_a_validator_may_die_before_or_after_any_of_its_calls(world: World) -> None:
    for at in itertools.count():
        challenge = write_one_time(f"{at:025d}")
        await create(world, challenge)
        request = await ask(world, holder(), challenge)
        thief = await ask(world, holder(1), challenge)
        trouble = Trouble(at, DiedError)
        try:
            await on_bus(world, BusThrough(world.bus, trouble)).handle(request)
        except DiedError:
            await on_bus(world, world.bus).handle(request)

        assert result(world, request) == "approved"
        assert await judgement(world, thief) == Reason.REPLAY
        if not trouble.happened:
            break
    assert at > 8


async def test_the_challenge_is_readable_nowhere_on_the_log(world: World) -> None:
    await create(world)
    request = await ask(world, holder(), CHALLENGE)
    thief = await ask(world, holder(1), CHALLENGE)
    assert await judgement(world, request) == "approved"
    assert await judgement(world, thief) == Reason.REPLAY

    messages = [m for stream in world.bus.streams.values() for m in stream.messages.values()]
    written = b"".join(m.payload + repr((m.subject, m.headers)).encode() for m in messages)
    assert CHALLENGE.encode() not in written


# Taken back


async def test_a_challenge_that_was_taken_back_lets_nobody_in(world: World) -> None:
    await create(world)
    await cancel(world)
    world.clock.seconds += 5
    request = await ask(world, holder(), CHALLENGE)

    assert await judgement(world, request) == Reason.CHALLENGE_WRONG
    assert detail(world, request) == "the challenge was cancelled"


async def test_a_challenge_taken_back_stays_so_for_every_retry(world: World) -> None:
    await create(world)
    await cancel(world)
    for attempt in range(3):
        world.clock.seconds += 60
        request = await ask(world, holder(), CHALLENGE, attempt=attempt)
        assert await judgement(world, request) == Reason.CHALLENGE_WRONG


async def test_one_taken_back_does_not_take_another_with_it(world: World) -> None:
    await create(world)
    await create(world, OTHER)
    await cancel(world, OTHER)

    assert await judgement(world, await ask(world, holder(), CHALLENGE)) == "approved"


@pytest.mark.parametrize("after", [1, 60, 0.5, 0.001])
async def test_what_was_used_before_it_was_taken_back_stays_its_holders(
    world: World, after: float
) -> None:
    """`cancel` has told the operator that it came too late."""
    await create(world)
    request = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, request) == "approved"
    world.clock.seconds += after
    await cancel(world)
    for stored in messages_of(world.bus, "ENROLL_0", ".verdict"):
        del world.bus.streams["ENROLL_0"].messages[stored.sequence]

    assert await judgement(world, request) == "approved"
    assert await judgement(world, await ask(world, holder(1), CHALLENGE)) == Reason.REPLAY


@pytest.mark.parametrize("attempt", [0, 1])
async def test_what_was_taken_back_after_a_use_that_failed_lets_no_retry_in(
    world: World, attempt: int
) -> None:
    await create(world)
    first = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, first) == "approved"
    await failed(world, first)
    world.clock.seconds += 1
    await cancel(world)
    transaction = b"another" if attempt == 0 else TRANSACTION
    again = await ask(world, holder(), CHALLENGE, attempt=attempt, transaction=transaction)

    assert await judgement(world, again) == Reason.CHALLENGE_WRONG
    assert detail(world, again) == "the challenge was cancelled"


async def test_a_cancellation_before_the_use_in_the_same_second_holds(world: World) -> None:
    await create(world)
    world.clock.seconds += 0.25
    await cancel(world)
    world.clock.seconds += 0.25

    request = await ask(world, holder(), CHALLENGE)
    assert await judgement(world, request) == Reason.CHALLENGE_WRONG


async def test_a_use_whose_validator_died_before_the_cancellation_was_the_first(
    world: World,
) -> None:
    """The record is what counts: the verdict that follows agrees with it."""
    await create(world)
    request = await ask(world, holder(), CHALLENGE)
    for at in itertools.count():
        trouble = Trouble(at, DiedError)
        with contextlib.suppress(DiedError):
            await on_bus(world, BusThrough(world.bus, trouble)).handle(request)
        if claims(world):
            break
    assert messages_of(world.bus, "ENROLL_0", ".verdict") == []
    world.clock.seconds += 2
    await cancel(world)

    assert await judgement(world, request) == "approved"


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR, ISSUING])
async def test_a_cancellation_that_no_operator_signed_is_reported(
    world: World, by: EventSigner
) -> None:
    await create(world)
    await cancel(world, by=by)
    world.clock.seconds += 5
    before = counted("security_events", stage="one_time")
    await judgement(world, await ask(world, holder(), CHALLENGE))

    assert counted("security_events", stage="one_time") == before + 1


@pytest.mark.parametrize("seed", range(5))
async def test_use_and_cancellation_at_the_same_moment_are_told_alike_now_and_later(
    world: World, seed: int
) -> None:
    """By the log's own times, which every validator reads: who was first stays first."""
    world.bus.clock = itertools.count(NOW * NANOSECONDS, 1000).__next__
    await create(world)
    requests = [await ask(world, holder(number), CHALLENGE) for number in range(6)]
    log, operator = replicas(world, 4, seed), BusThrough(world.bus, racing(seed))
    await asyncio.gather(evaluate_all(log, requests), cancel_through(world, operator))
    before = [result(world, request) for request in requests]
    for stored in messages_of(world.bus, "ENROLL_0", ".verdict"):
        del world.bus.streams["ENROLL_0"].messages[stored.sequence]
    await evaluate_all(log, requests)

    assert [result(world, request) for request in requests] == before
    (record,), (cancelled,) = claims(world), messages_of(world.bus, OPS, ".cancelled")
    assert before.count("approved") == (record.time < cancelled.time)


async def cancel_through(world: World, bus: BusThrough) -> None:
    """An operator at work beside the validators, somewhen in the middle."""
    for _ in range(12):
        await bus.step()
    await cancel(world)
