from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shared.bus.core import BusUnavailableError
from shared.bus.topology import gateway_hints
from shared.log.envelope import SUBJECT, TYPE, Message, Stored
from shared.log.events.enrollment import CertificateIssued, EnrollmentRejected, IssuanceFailed
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.scep.errors import FailInfo
from tests.support import pki
from tests.support.templates import EKU, SPKI, template
from tests.support.world import (
    GATEWAY,
    ISSUER,
    ISSUING,
    NOW,
    REQUEST_SHA256,
    STRANGER,
    VALIDATOR,
    append,
    approved,
    counted,
    signed_event,
    turn,
    until,
)
from tests.unit.services.issuer.issuers import ENROLLMENT, VERDICT, World, make_world


@pytest.fixture
async def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return await make_world(ec_key)


async def test_an_approval_becomes_a_certificate_of_the_ca(world: World) -> None:
    await world.consumer.handle(await world.verdict())

    outcome = world.outcome()
    assert isinstance(outcome, CertificateIssued)
    leaf = x509.load_der_x509_certificate(outcome.certificate)
    leaf.verify_directly_issued_by(world.ca.certificate)
    assert pki.spki(leaf.public_key()) == SPKI
    assert f"{leaf.serial_number:x}" == outcome.serial
    assert outcome.not_after == leaf.not_valid_after_utc.timestamp()
    assert world.outcomes()[0].subject == ENROLLMENT.subject(Stage.OUTCOME)


async def test_the_serial_is_recorded_before_there_is_a_certificate(world: World) -> None:
    verdict = await world.verdict()
    world.bus.streams["CERTS"].subjects = ()
    with pytest.raises(BusUnavailableError):
        await world.consumer.handle(verdict)

    assert world.outcomes() == []


async def test_the_record_names_enrollment_key_and_device(world: World) -> None:
    await world.consumer.handle(await world.verdict())

    outcome = world.outcome()
    assert isinstance(outcome, CertificateIssued)
    record = world.record(f"cert.{ISSUER}.{outcome.serial}.issued")
    assert record.serial == outcome.serial
    assert record.ca_spki_sha256 == world.ca.pin
    assert record.enrollment == ENROLLMENT.prefix()
    assert record.subject == "CN=device, O=Lab"
    assert (record.not_before, record.not_after) == (NOW - 600, NOW + 365 * 86400)


async def test_the_outcome_is_hinted_to_the_gateway_that_asked(world: World) -> None:
    await world.consumer.handle(await world.verdict())
    await until(lambda: world.hints)

    (stored,) = world.outcomes()
    hint = Message(stored.payload, {**stored.headers, SUBJECT: stored.subject})
    assert world.hints == [(gateway_hints(GATEWAY), hint)]


# What must never become a certificate


async def nothing_happens(world: World, verdict: Stored) -> None:
    """Neither outcome nor record nor hint, but a security event."""
    before = counted("security_events", stage="verdict")
    await world.consumer.handle(verdict)
    await world.consumer.give_up(verdict)
    await turn()

    assert (world.outcomes(), world.records(), world.hints) == ([], [], [])
    assert counted("security_events", stage="verdict") == before + 2


async def test_a_verdict_signed_by_an_unknown_key_yields_no_certificate(world: World) -> None:
    event = approved(template(world.ca.certificate))

    verdict = await world.verdict(message=signed_event(event, VERDICT, STRANGER))
    await nothing_happens(world, verdict)


async def test_a_verdict_moved_to_another_subject_yields_no_certificate(world: World) -> None:
    event = approved(template(world.ca.certificate))
    elsewhere = signed_event(event, ENROLLMENT.at(1).subject(Stage.VERDICT), VALIDATOR)

    await nothing_happens(world, await world.verdict(message=elsewhere))


async def test_a_verdict_altered_in_its_template_yields_no_certificate(world: World) -> None:
    good = signed_event(approved(template(world.ca.certificate)), VERDICT, VALIDATOR)
    longer = template(world.ca.certificate, not_after=NOW + 366 * 86400)
    bad = signed_event(approved(longer), VERDICT, VALIDATOR)
    assert good.payload != bad.payload

    await nothing_happens(world, await world.verdict(message=Message(bad.payload, good.headers)))


async def test_a_verdict_signed_over_another_request_yields_no_certificate(world: World) -> None:
    event = approved(template(world.ca.certificate))
    message = signed_event(event, VERDICT, VALIDATOR, request_sha256="00" * 32)

    await nothing_happens(world, await world.verdict(message=message))


async def test_an_unsigned_verdict_yields_no_certificate(world: World) -> None:
    message = signed_event(approved(template(world.ca.certificate)), VERDICT, VALIDATOR)
    bare = Message(message.payload, {TYPE: message.headers[TYPE]})

    await nothing_happens(world, await world.verdict(message=bare))


async def test_an_issuers_own_key_approves_nothing(world: World) -> None:
    event = approved(template(world.ca.certificate))

    await nothing_happens(world, await world.verdict(message=signed_event(event, VERDICT, ISSUING)))


@pytest.mark.parametrize("late", [0.001, 1, 10**6])
async def test_a_verdict_past_its_valid_until_yields_no_certificate(
    world: World, late: float
) -> None:
    verdict = await world.verdict()
    world.clock.seconds = NOW + 86400 + late
    await world.consumer.handle(verdict)

    outcome = world.outcome()
    assert isinstance(outcome, IssuanceFailed)
    assert outcome.reason is Reason.VERDICT_EXPIRED
    assert outcome.fail_info is FAIL_INFO[Reason.VERDICT_EXPIRED]
    assert world.records() == []


async def test_a_verdict_at_its_valid_until_is_acted_on(world: World) -> None:
    verdict = await world.verdict()
    world.clock.seconds = NOW + 86400
    await world.consumer.handle(verdict)

    assert isinstance(world.outcome(), CertificateIssued)


async def test_a_rejection_does_nothing(world: World) -> None:
    rejected = EnrollmentRejected(
        request_sha256=REQUEST_SHA256,
        reason=Reason.CHALLENGE_WRONG,
        fail_info=FailInfo.BAD_MESSAGE_CHECK,
        detail="",
    )
    verdict = await world.verdict(rejected)
    before = counted("security_events", stage="verdict")
    await world.consumer.handle(verdict)
    await world.consumer.give_up(verdict)
    await turn()

    assert (world.outcomes(), world.records(), world.hints) == ([], [], [])
    assert counted("security_events", stage="verdict") == before


@pytest.mark.parametrize(
    "change",
    [
        {"ca_spki_sha256": "00" * 32},
        {"not_after": NOW + 9000 * 86400},
        {"extensions": (EKU,)},
        {"issuer": "elsewhere"},
    ],
    ids=["another CA key", "too long", "no key usage", "another issuer"],
)
async def test_a_verdict_beyond_the_ceilings_fails_and_leaves_no_record(
    world: World, change: dict[str, Any]
) -> None:
    verdict = await world.verdict(approved(template(world.ca.certificate, **change)))
    await world.consumer.handle(verdict)

    outcome = world.outcome()
    assert isinstance(outcome, IssuanceFailed)
    assert outcome.reason is Reason.BEYOND_CEILING
    assert world.records() == []


# Once and again


async def test_a_verdict_handled_twice_gives_one_outcome_and_no_more_records(world: World) -> None:
    verdict = await world.verdict()
    before = counted("outcomes", issuer=ISSUER, reason="issued")
    await world.consumer.handle(verdict)
    first, record = world.outcomes(), world.records()
    await world.consumer.handle(verdict)
    await until(lambda: len(world.hints) == 2)

    assert (world.outcomes(), world.records()) == (first, record)
    assert world.hints[0] == world.hints[1]
    assert counted("outcomes", issuer=ISSUER, reason="issued") == before + 1


async def test_a_kill_between_record_and_outcome_leads_to_the_same_serial(world: World) -> None:
    verdict = await world.verdict()
    await world.consumer.handle(verdict)
    (lost,) = world.outcomes()
    before = world.records()
    del world.bus.streams["ENROLL_0"].messages[lost.sequence]
    await world.consumer.handle(verdict)

    assert world.records() == before
    outcome = world.outcome()
    assert isinstance(outcome, CertificateIssued)
    assert outcome.serial in world.records()[0].subject


async def test_a_conflict_is_answered_with_the_stored_outcome(world: World) -> None:
    verdict = await world.verdict()
    first = IssuanceFailed(
        request_sha256=REQUEST_SHA256,
        reason=Reason.POISON,
        fail_info=FAIL_INFO[Reason.POISON],
        detail="was there first",
    )
    subject = ENROLLMENT.subject(Stage.OUTCOME)
    stored = await append(world.bus, subject, signed_event(first, subject, ISSUING))
    await world.consumer.handle(verdict)
    await until(lambda: world.hints)

    assert world.outcomes() == [stored]
    assert world.hints[0][1].payload == stored.payload


async def test_giving_up_ends_a_verdict_with_a_signed_failure(world: World) -> None:
    await world.consumer.give_up(await world.verdict())
    await until(lambda: world.hints)

    outcome = world.outcome()
    assert isinstance(outcome, IssuanceFailed)
    assert outcome.reason is Reason.POISON
    assert world.records() == []


async def test_giving_up_after_a_certificate_changes_nothing(world: World) -> None:
    verdict = await world.verdict()
    await world.consumer.handle(verdict)
    before = world.outcomes()
    await world.consumer.give_up(verdict)

    assert world.outcomes() == before
