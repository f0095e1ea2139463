"""Renewals as the gateway records them: whose certificate signed, and for which key."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.log.envelope import EventSigner, decode
from shared.log.events.enrollment import EnrollmentRequested
from shared.log.subjects import NO_RENEWAL, EnrollmentId, csr_token, parse_subject
from shared.scep.certrep import PkiStatus
from shared.scep.errors import FailInfo
from tests.support import pki
from tests.support.messages import (
    PRINTABLE,
    Identity,
    cms_attributes,
    csr,
    device_csr,
    enveloped,
    recipient,
    scep_attributes,
    signed,
    tlv,
)
from tests.support.world import (
    ISSUING,
    SERIAL,
    STRANGER,
    certified,
    counted,
    csr_info,
    messages_of,
    signed_event,
)
from tests.unit.services.gateway.gateways import World, make_world

NEXT_KEY = ec.derive_private_key(41, ec.SECP256R1())
RENEWS = bytes.fromhex(SERIAL)


@pytest.fixture
async def world(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> World:
    return await make_world(device, ra, ec_key)


def message(world: World, signer: Identity, asked: bytes, kind: bytes = b"19") -> bytes:
    content = enveloped(asked, recipient(world.ra))
    attributes = [*scep_attributes(message_type=tlv(PRINTABLE, kind)), *cms_attributes(content)]
    return signed(content, signer, attributes)


def recorded(world: World) -> list[EnrollmentId]:
    return [parse_subject(stored.subject)[0] for stored in world.requests()]


@pytest.mark.parametrize("kind", [b"17", b"19"])
async def test_a_renewal_with_a_new_key_is_recorded_with_the_serial_that_it_renews(
    world: World, ra: Identity, kind: bytes
) -> None:
    """Whichever message type says it."""
    asked, signer = csr(ra.key), certified(world.device, world.ca)
    world.others.device, world.device = ra, signer
    reply = await world.send(message(world, signer, asked, kind))

    (enrollment,) = recorded(world)
    assert enrollment.csr == csr_token(csr_info(asked), RENEWS) != csr_token(csr_info(asked))
    assert reply.status is PkiStatus.SUCCESS
    assert world.certificate(reply)


@pytest.mark.parametrize("kind", [17, 19])
async def test_the_record_says_which_message_type_it_was(world: World, kind: int) -> None:
    signer = certified(world.device, world.ca)
    await world.send(message(world, signer, device_csr(world.device), str(kind).encode()))

    (stored,) = world.requests()
    event = decode(stored.payload, stored.headers)
    assert isinstance(event, EnrollmentRequested)
    assert event.message_type == kind


async def test_both_message_types_of_one_renewal_are_one_enrollment(world: World) -> None:
    """A client that falls back from 17 to 19 gets the same certificate."""
    world.device = certified(world.device, world.ca)
    replies = [
        await world.send(message(world, world.device, device_csr(world.device), kind))
        for kind in (b"17", b"19")
    ]

    assert len(world.requests()) == 1
    assert world.certificate(replies[0]) == world.certificate(replies[1])


async def test_one_csr_renews_each_certificate_in_an_enrollment_of_its_own(world: World) -> None:
    """A device that keeps its key sends the very same CSR every year."""
    asked = device_csr(world.device)
    for signer in (
        world.device,
        certified(world.device, world.ca),
        certified(world.device, world.ca, "41" * 16),
    ):
        await world.send(message(world, signer, asked))

    assert len({enrollment.csr for enrollment in recorded(world)}) == 3
    assert len({enrollment.transaction for enrollment in recorded(world)}) == 1


async def test_a_renewal_sent_again_is_answered_from_the_log(world: World) -> None:
    world.device = certified(world.device, world.ca)
    body = message(world, world.device, device_csr(world.device))
    first, second = await world.send(body), await world.send(body)

    assert world.certificate(first) == world.certificate(second)
    assert len(world.requests()) == 1


async def test_a_certificate_of_the_previous_ca_is_renewed_too(world: World, ra: Identity) -> None:
    signer = certified(world.device, world.ca)
    world.roll_over(pki.local_ca(NEXT_KEY, "Next CA"))
    world.others.device = ra
    asked = csr(ra.key)
    reply = await world.send(message(world, signer, asked))

    assert reply.status is PkiStatus.SUCCESS
    assert recorded(world)[0].csr == csr_token(csr_info(asked), RENEWS)


@pytest.mark.parametrize("kind", [b"17", b"19"])
async def test_a_strangers_certificate_counts_like_a_self_signed_one(
    world: World, kind: bytes
) -> None:
    """Of another CA under the name of ours: the validator decides by the challenge, or refuses."""
    signer = certified(world.device, pki.local_ca(NEXT_KEY))
    asked = device_csr(world.device)
    await world.send(message(world, signer, asked, kind))

    mark = NO_RENEWAL if kind == b"17" else b""
    assert [enrollment.csr for enrollment in recorded(world)] == [csr_token(csr_info(asked), mark)]


@pytest.mark.parametrize("kind", [b"17", b"19"])
@pytest.mark.parametrize("stranger", [True, False])
async def test_who_is_not_ours_asks_for_no_other_key_where_the_profile_wants_it_so(
    world: World,
    ra: Identity,
    kind: bytes,
    stranger: bool,  # noqa: FBT001 - a case
) -> None:
    world.profile = replace(world.profile, any_signer=False)
    other = certified(world.device, pki.local_ca(NEXT_KEY))
    signer = other if stranger else world.device
    reply = await world.send(message(world, signer, csr(ra.key), kind))

    assert reply.fail_info is FailInfo.BAD_MESSAGE_CHECK
    assert world.requests() == []


async def test_a_ca_that_was_dropped_vouches_for_nobody(world: World, ra: Identity) -> None:
    """What its certificates sign is a first enrollment, which the challenge decides on."""
    signer = certified(world.device, world.ca)
    world.roll_over(pki.local_ca(NEXT_KEY, "Next CA"))
    world.previous = ()
    world.others.device = ra
    asked = csr(ra.key)
    await world.send(message(world, signer, asked))

    assert [enrollment.csr for enrollment in recorded(world)] == [csr_token(csr_info(asked))]


async def test_a_poll_finds_a_renewal_with_a_new_key_by_the_old_one(
    world: World, ra: Identity
) -> None:
    """Until it has the new certificate, the old one is all that a device can sign with."""
    world.others.device, world.device = ra, certified(world.device, world.ca)
    first = await world.send(message(world, world.device, csr(ra.key)))
    polled = await world.poll()

    assert world.certificate(polled) == world.certificate(first)


@pytest.mark.parametrize("by", [STRANGER, ISSUING])
async def test_a_poll_does_not_take_the_key_from_a_forged_verdict(
    world: World, ra: Identity, by: EventSigner
) -> None:
    """Else whoever may write one could have any certificate handed out as the device's."""
    world.others.device, world.device = ra, certified(world.device, world.ca)
    first = await world.send(message(world, world.device, csr(ra.key)))
    assert first.status is PkiStatus.SUCCESS
    (stored,) = messages_of(world.bus, "ENROLL_0", ".verdict")
    event = decode(stored.payload, stored.headers)
    forged = signed_event(event, stored.subject, by)
    world.bus.streams["ENROLL_0"].messages[stored.sequence] = replace(
        stored, payload=forged.payload, headers=forged.headers
    )
    before = counted("security_events", stage="outcome")

    assert (await world.poll()).status is PkiStatus.PENDING
    assert counted("security_events", stage="outcome") == before + 1
