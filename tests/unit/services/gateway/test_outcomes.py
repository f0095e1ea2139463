import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.outcomes import EnrollmentStatus, PendingRequest
from shared.log.envelope import SUBJECT, EventSigner, Message, sign
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
    EnrollmentRejected,
)
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from tests.support.messages import Identity, spki
from tests.support.templates import template
from tests.support.world import (
    GATEWAY,
    ISSUING,
    NOW,
    REQUEST_SHA256,
    STRANGER,
    VALIDATOR,
    append,
    approved,
    counted,
)
from tests.unit.services.gateway.gateways import World, make_world


@pytest.fixture
async def world(
    device: Identity,
    ra: Identity,
    ec_key: ec.EllipticCurvePrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setattr("services.gateway.outcomes._POLL_SECONDS", 0.005)
    return await make_world(device, ra, ec_key)


@pytest.fixture
def request_(world: World) -> PendingRequest:
    key = spki(world.device.key.public_key())
    return PendingRequest(world.enrollment(), REQUEST_SHA256, key, world.profile)


def rejected(request_sha256: str = REQUEST_SHA256) -> EnrollmentRejected:
    reason = Reason.CHALLENGE_WRONG
    return EnrollmentRejected(
        request_sha256=request_sha256, reason=reason, fail_info=FAIL_INFO[reason], detail=""
    )


def issued(world: World) -> CertificateIssued:
    return world.others.issued(REQUEST_SHA256, spki(world.device.key.public_key()))


def message(
    world: World, stage: Stage, event: EnrollmentRejected | CertificateIssued, by: EventSigner
) -> Message:
    return sign(event, world.enrollment().subject(stage), by)


async def waited(
    world: World, request_: PendingRequest, *hints: tuple[str, Message]
) -> EnrollmentStatus:
    """The end after these hints, within a moment."""
    with world.outcomes.waiter(request_.enrollment) as hint:
        for subject, found in hints:
            headers = found.headers | {SUBJECT: subject}
            world.outcomes.on_hint(f"gw.{GATEWAY}", found.payload, headers)
        deadline = asyncio.get_running_loop().time() + 0.03
        return await world.outcomes.wait(request_, world.chain, hint, deadline)


async def test_a_hint_of_an_authentic_end_is_the_end(
    world: World, request_: PendingRequest
) -> None:
    good = message(world, Stage.VERDICT, rejected(), VALIDATOR)
    subject = world.enrollment().subject(Stage.VERDICT)

    assert (await waited(world, request_, (subject, good))).terminal == rejected()


@pytest.mark.parametrize("stage", [Stage.VERDICT, Stage.OUTCOME, Stage.REQUEST])
@pytest.mark.parametrize("by", [STRANGER, ISSUING])
async def test_a_hint_that_is_not_the_validators_is_no_end(
    world: World, request_: PendingRequest, stage: Stage, by: EventSigner
) -> None:
    forged = message(world, Stage.VERDICT, rejected(), by)
    before = counted("security_events", stage=stage)
    end = await waited(world, request_, (world.enrollment().subject(stage), forged))

    assert end == EnrollmentStatus()
    assert counted("security_events", stage=stage) > before


async def test_one_false_hint_is_one_security_event(world: World, request_: PendingRequest) -> None:
    """Not one for every second that is waited after it."""
    forged = message(world, Stage.VERDICT, rejected(), STRANGER)
    before = counted("security_events", stage="verdict")
    await waited(world, request_, (world.enrollment().subject(Stage.VERDICT), forged))

    assert counted("security_events", stage="verdict") == before + 1


async def test_a_validators_key_signs_no_outcome(world: World, request_: PendingRequest) -> None:
    forged = message(world, Stage.OUTCOME, issued(world), VALIDATOR)

    end = await waited(world, request_, (world.enrollment().subject(Stage.OUTCOME), forged))
    assert end == EnrollmentStatus()


async def test_a_hint_about_another_attempt_is_not_heard(
    world: World, request_: PendingRequest
) -> None:
    other = world.enrollment(attempt=1).subject(Stage.VERDICT)
    found = sign(rejected(), other, VALIDATOR)
    before = counted("security_events", stage="verdict")

    assert await waited(world, request_, (other, found)) == EnrollmentStatus()
    assert counted("security_events", stage="verdict") == before


async def test_a_true_event_hinted_under_a_false_subject_is_no_end(
    world: World, request_: PendingRequest
) -> None:
    other = world.enrollment(attempt=1).subject(Stage.VERDICT)
    found = sign(rejected(), other, VALIDATOR)

    assert (
        await waited(world, request_, (request_.enrollment.subject(Stage.VERDICT), found))
        == EnrollmentStatus()
    )


@pytest.mark.parametrize("tail", ["", ".", ".verdict.more", ".nothing"])
async def test_a_hint_under_a_subject_of_no_stage_is_no_end(
    world: World, request_: PendingRequest, tail: str
) -> None:
    found = message(world, Stage.VERDICT, rejected(), VALIDATOR)

    assert (
        await waited(world, request_, (request_.enrollment.prefix() + tail, found))
        == EnrollmentStatus()
    )


async def test_an_end_of_another_request_is_no_end(world: World, request_: PendingRequest) -> None:
    other = message(world, Stage.VERDICT, rejected("00" * 32), VALIDATOR)
    subject = world.enrollment().subject(Stage.VERDICT)

    assert await waited(world, request_, (subject, other)) == EnrollmentStatus()


async def test_after_a_false_hint_the_log_decides(world: World, request_: PendingRequest) -> None:
    subject = world.enrollment().subject(Stage.VERDICT)
    await append(world.bus, subject, message(world, Stage.VERDICT, rejected(), VALIDATOR))
    forged = message(world, Stage.VERDICT, rejected(), STRANGER)
    end = await waited(world, request_, (subject, forged))

    assert (end.terminal, end.time) == (rejected(), NOW)


async def test_the_first_hint_counts_and_a_second_does_no_harm(
    world: World, request_: PendingRequest
) -> None:
    subject = world.enrollment().subject(Stage.VERDICT)
    good = message(world, Stage.VERDICT, rejected(), VALIDATOR)
    forged = message(world, Stage.VERDICT, rejected(), STRANGER)

    assert (await waited(world, request_, (subject, good), (subject, forged))).terminal


async def test_hints_for_nobody_are_passed_over(world: World) -> None:
    world.outcomes.on_hint("gw.x", b"", {})
    world.outcomes.on_hint("gw.x", b"", {SUBJECT: "enroll.0.a.b.c.0.verdict"})

    assert not world.outcomes._waiting


# From the log


async def test_an_approval_is_no_end(world: World, request_: PendingRequest) -> None:
    subject = world.enrollment().subject(Stage.VERDICT)
    event = approved(template(world.ca.certificate))
    found = sign(event, subject, VALIDATOR)
    await append(world.bus, subject, found)

    end = await world.outcomes.read(request_, world.chain)
    assert (end.terminal, end.settled) == (None, False)


async def test_the_outcome_counts_before_the_verdict(
    world: World, request_: PendingRequest
) -> None:
    verdict, outcome = (world.enrollment().subject(s) for s in (Stage.VERDICT, Stage.OUTCOME))
    await append(world.bus, verdict, message(world, Stage.VERDICT, rejected(), VALIDATOR))
    await append(world.bus, outcome, message(world, Stage.OUTCOME, issued(world), ISSUING))

    end = await world.outcomes.read(request_, world.chain)
    assert isinstance(end.terminal, CertificateIssued)


@pytest.mark.parametrize("stage", [Stage.VERDICT, Stage.OUTCOME])
async def test_a_stored_forgery_says_that_the_attempt_cannot_end(
    world: World, request_: PendingRequest, stage: Stage
) -> None:
    event = rejected() if stage is Stage.VERDICT else issued(world)
    subject = world.enrollment().subject(stage)
    await append(world.bus, subject, message(world, stage, event, STRANGER))

    assert await world.outcomes.read(request_, world.chain) == EnrollmentStatus(forged=True)


async def test_a_certificate_for_another_key_is_a_forgery(
    world: World, request_: PendingRequest
) -> None:
    subject = world.enrollment().subject(Stage.OUTCOME)
    await append(world.bus, subject, message(world, Stage.OUTCOME, issued(world), ISSUING))
    other = replace(request_, spki=spki(world.ra.key.public_key()))

    assert (await world.outcomes.read(other, world.chain)).forged


@pytest.mark.parametrize("certificate", [b"", b"\x30\x00", b"\x30\x82\xff\xff"])
async def test_a_certificate_that_does_not_parse_is_a_forgery(
    world: World, request_: PendingRequest, certificate: bytes
) -> None:
    broken = CertificateIssued(
        request_sha256=REQUEST_SHA256, issuer="local", serial="40",
        certificate=certificate, not_after=NOW,
    )  # fmt: skip
    subject = world.enrollment().subject(Stage.OUTCOME)
    await append(world.bus, subject, message(world, Stage.OUTCOME, broken, ISSUING))

    assert (await world.outcomes.read(request_, world.chain)).forged


# A certificate that is withheld until its confirmation


def withheld(world: World) -> CertificateIssued:
    return msgspec.structs.replace(issued(world), confirmed_by="contoso", withheld=True)


async def confirm(
    world: World, event: CertificateConfirmed | ConfirmationFailed, by: EventSigner = VALIDATOR
) -> Message:
    subject = world.enrollment().subject(Stage.CONFIRMATION)
    message = sign(event, subject, by)
    await world.bus.append(subject, message)
    return message


def confirmed(world: World, **changes: Any) -> CertificateConfirmed:
    values = {
        "request_sha256": REQUEST_SHA256,
        "connection": "contoso",
        "serial": issued(world).serial,
    }
    return CertificateConfirmed(**(values | changes))


def refused(world: World) -> ConfirmationFailed:
    return ConfirmationFailed(
        request_sha256=REQUEST_SHA256,
        connection="contoso",
        serial=issued(world).serial,
        reason=Reason.NOT_CONFIRMED,
        fail_info=FAIL_INFO[Reason.NOT_CONFIRMED],
        detail="Intune did not accept the certificate",
        withdrawn=True,
    )


async def test_a_withheld_certificate_is_no_end_even_in_a_hint(
    world: World, request_: PendingRequest
) -> None:
    good = message(world, Stage.OUTCOME, withheld(world), ISSUING)
    subject = world.enrollment().subject(Stage.OUTCOME)
    await world.bus.append(subject, good)

    assert not (await waited(world, request_, (subject, good))).settled


async def test_its_confirmation_makes_it_the_answer(world: World, request_: PendingRequest) -> None:
    made, subject = withheld(world), world.enrollment().subject(Stage.OUTCOME)
    await world.bus.append(subject, message(world, Stage.OUTCOME, made, ISSUING))
    good = await confirm(world, confirmed(world))

    assert (await world.outcomes.read(request_, world.chain)).terminal == made
    place = world.enrollment().subject(Stage.CONFIRMATION)
    assert (await waited(world, request_, (place, good))).terminal == made


async def test_its_refusal_is_the_answer(world: World, request_: PendingRequest) -> None:
    subject = world.enrollment().subject(Stage.OUTCOME)
    await world.bus.append(subject, message(world, Stage.OUTCOME, withheld(world), ISSUING))
    await confirm(world, refused(world))

    assert (await world.outcomes.read(request_, world.chain)).terminal == refused(world)


@pytest.mark.parametrize("by", [ISSUING, STRANGER])
async def test_only_a_validator_confirms(
    world: World, request_: PendingRequest, by: EventSigner
) -> None:
    subject = world.enrollment().subject(Stage.OUTCOME)
    await world.bus.append(subject, message(world, Stage.OUTCOME, withheld(world), ISSUING))
    await confirm(world, confirmed(world), by)
    found = await world.outcomes.read(request_, world.chain)

    assert (found.terminal, found.forged) == (None, True)


@pytest.mark.parametrize("changes", [{"serial": "77"}, {"request_sha256": "ab" * 32}])
async def test_a_confirmation_of_another_certificate_confirms_nothing(
    world: World, request_: PendingRequest, changes: dict[str, str]
) -> None:
    subject = world.enrollment().subject(Stage.OUTCOME)
    await world.bus.append(subject, message(world, Stage.OUTCOME, withheld(world), ISSUING))
    await confirm(world, confirmed(world, **changes))
    found = await world.outcomes.read(request_, world.chain)

    assert (found.terminal, found.forged) == (None, True)


async def test_a_confirmation_without_a_certificate_gives_none_out(
    world: World, request_: PendingRequest
) -> None:
    good = await confirm(world, confirmed(world))
    place = world.enrollment().subject(Stage.CONFIRMATION)

    assert not (await waited(world, request_, (place, good))).settled
