import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.enroll import UnanswerableError
from shared.bus.core import BusUnavailableError
from shared.log.enrollment import RETRY_DELAYS
from shared.log.envelope import Message, decode
from shared.log.events.enrollment import EnrollmentRequested
from shared.log.seal import unseal
from shared.log.shards import Epoch
from shared.log.stages import Stage
from shared.scep.certrep import PkiStatus
from shared.scep.errors import FailInfo
from tests.support import pki
from tests.support.messages import (
    DEVICE_NAME,
    NONCE,
    PRINTABLE,
    TRANSACTION,
    Identity,
    challenge,
    cipher_key,
    cms_attributes,
    csr,
    device_csr,
    enveloped,
    name,
    recipient,
    scep_attributes,
    signed,
    tlv,
)
from tests.support.world import NOW, OPENING, STRANGER, append, counted, pki_message, turn, until
from tests.unit.services.gateway.gateways import World, make_world

DAY = 86400
Make = Callable[..., Awaitable[World]]


@pytest.fixture
def make(
    device: Identity,
    ra: Identity,
    ec_key: ec.EllipticCurvePrivateKey,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    monkeypatch.setattr("services.gateway.outcomes._POLL_SECONDS", 0.01)

    async def made(**options: Any) -> World:
        return await make_world(device, ra, ec_key, **options)

    return made


@pytest.fixture
async def world(make: Make) -> World:
    return await make()


# A fresh request


async def test_a_fresh_request_is_recorded_and_answered_with_the_certificate(world: World) -> None:
    reply = await world.enroll()

    assert reply.status is PkiStatus.SUCCESS
    leaf = x509.load_der_x509_certificate(world.certificate(reply))
    assert leaf.public_key() == world.device.key.public_key()
    assert [r.subject for r in world.requests()] == [world.enrollment().subject(Stage.REQUEST)]


async def test_the_reply_repeats_transaction_and_nonce_under_the_ras_signature(
    world: World,
) -> None:
    first, second = await world.enroll(), await world.enroll()

    assert first.transaction_id == TRANSACTION
    assert first.recipient_nonce == NONCE
    assert first.signed.signer.der == world.ra.der
    assert len(first.sender_nonce) == 16
    assert first.sender_nonce != second.sender_nonce


async def test_the_record_holds_the_message_and_a_key_that_validators_alone_can_open(
    world: World,
) -> None:
    body = pki_message(world.device, world.ra)
    await world.send(body)

    (stored,) = world.requests()
    event = decode(stored.payload, stored.headers)
    assert isinstance(event, EnrollmentRequested)
    assert event.pki_message == body
    assert event.client_address == "192.0.2.9"
    assert unseal(event.content_key, stored.subject, OPENING) == cipher_key("aes256")
    assert cipher_key("aes256") not in stored.payload


@pytest.mark.parametrize("answer", ["rejected", "failed"])
async def test_a_refusal_of_the_others_is_a_failure(world: World, answer: str) -> None:
    world.others.answer = answer
    reply = await world.enroll()

    assert reply.status is PkiStatus.FAILURE
    assert reply.fail_info is FailInfo.BAD_REQUEST
    assert reply.fail_info_text == "because"


@pytest.mark.parametrize("answer", ["issued", "rejected"])
async def test_a_lost_hint_is_made_up_for_by_reading_the_log(world: World, answer: str) -> None:
    world.others.answer, world.others.hints = answer, False

    assert (await world.enroll()).status is not PkiStatus.PENDING


async def test_the_profile_may_add_the_ca_to_the_reply(make: Make) -> None:
    world = await make(include_chain=True)
    reply = await world.enroll()

    with pytest.raises(ValueError, match="too many values"):
        world.certificate(reply)


# Repeats


async def test_a_repeat_gets_the_same_certificate_and_no_second_request(world: World) -> None:
    first = await world.enroll()
    world.clock.seconds += 300 * DAY
    second = await world.enroll()

    assert world.certificate(first) == world.certificate(second)
    assert len(world.requests()) == 1


async def test_a_repeat_that_another_gateway_answers_gets_the_same(
    world: World, make: Make
) -> None:
    first = await world.enroll()
    other = await make()
    other.enroller.bus = other.outcomes.bus = world.bus

    assert world.certificate(await other.enroll()) == world.certificate(first)


async def test_repeats_at_the_same_time_share_one_request(world: World) -> None:
    replies = await asyncio.gather(*(world.enroll() for _ in range(5)))

    assert len({world.certificate(reply) for reply in replies}) == 1
    assert len(world.requests()) == 1


async def test_a_repeat_waits_for_what_is_in_flight(world: World) -> None:
    world.others.answer = "nothing"
    waiting = asyncio.create_task(world.enroll())
    await until(lambda: world.others.seen)
    repeat = asyncio.create_task(world.enroll())
    await turn()
    world.others.answer = "issued"
    await world.others.end(world.enrollment(), world.requests()[0])

    assert world.certificate(await waiting) == world.certificate(await repeat)
    assert len(world.requests()) == 1


async def test_after_a_certificate_has_ended_a_repeat_is_a_new_attempt(world: World) -> None:
    await world.enroll()
    world.clock.seconds = NOW + 365 * DAY
    assert len(world.requests()) == 1
    await world.enroll()

    assert [e.attempt for e in world.others.seen] == [0, 1]


@pytest.mark.parametrize("answer", ["rejected", "failed"])
async def test_a_failure_is_repeated_until_its_delay_is_over_then_tried_anew(
    world: World, answer: str
) -> None:
    world.others.answer = answer
    for attempt, delay in enumerate(RETRY_DELAYS):
        assert (await world.enroll()).status is PkiStatus.FAILURE
        world.clock.seconds += delay - 1
        assert (await world.enroll()).status is PkiStatus.FAILURE
        assert [e.attempt for e in world.others.seen] == list(range(attempt + 1))
        world.clock.seconds += 1
    world.others.answer = "issued"

    assert (await world.enroll()).status is PkiStatus.SUCCESS
    assert world.others.seen[-1].attempt == len(RETRY_DELAYS)


async def test_another_csr_of_the_same_transaction_is_another_enrollment(world: World) -> None:
    """Clients use one transactionID for all requests of a key, renewals included."""
    await world.enroll()
    await world.enroll(csr(world.device.key, challenge(PRINTABLE, b"s3cret")))

    first, second = world.others.seen
    assert first.transaction == second.transaction
    assert first.csr != second.csr


async def test_the_same_transaction_id_of_another_key_is_another_transaction(
    world: World, ra: Identity
) -> None:
    await world.enroll()
    world.others.device = ra
    await world.send(pki_message(ra, ra, device_csr(ra)))

    assert len({e.transaction for e in world.others.seen}) == 2


# Pending, and polls


async def test_at_the_end_of_the_budget_the_answer_is_pending(make: Make) -> None:
    world = await make(reply_budget=0.05)
    world.others.answer = "nothing"
    reply = await world.enroll()

    assert reply.status is PkiStatus.PENDING
    assert len(world.requests()) == 1


async def test_what_was_pending_is_found_by_poll_and_by_repeat(make: Make) -> None:
    world = await make(reply_budget=0.05)
    world.others.answer = "nothing"
    await world.enroll()
    assert (await world.poll()).status is PkiStatus.PENDING
    world.others.answer = "issued"
    await world.others.end(world.enrollment(), world.requests()[0])

    polled, repeated = await world.poll(), await world.enroll()
    assert world.certificate(polled) == world.certificate(repeated)


async def test_a_poll_tells_of_a_refusal(world: World) -> None:
    world.others.answer = "rejected"
    await world.enroll()

    assert (await world.poll()).status is PkiStatus.FAILURE


async def test_a_poll_for_no_transaction_is_bad_cert_id(world: World) -> None:
    reply = await world.poll()

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


async def test_a_poll_by_another_key_finds_nothing(world: World, ra: Identity) -> None:
    await world.enroll()

    assert (await world.poll(ra)).fail_info is FailInfo.BAD_CERT_ID


async def test_a_poll_for_another_transaction_finds_nothing(world: World) -> None:
    await world.enroll()
    reply = await world.poll(transaction_id=tlv(PRINTABLE, b"another"))

    assert reply.fail_info is FailInfo.BAD_CERT_ID


# Forgeries


@pytest.mark.parametrize("answer", ["issued", "rejected", "failed"])
@pytest.mark.parametrize("hints", [True, False])
async def test_a_forged_end_is_reported_and_never_passed_on(
    world: World,
    answer: str,
    hints: bool,  # noqa: FBT001 - a case
) -> None:
    stage = "verdict" if answer == "rejected" else "outcome"
    before = counted("security_events", stage=stage)
    world.others.answer, world.others.hints, world.others.forge = answer, hints, STRANGER
    reply = await world.enroll()

    assert reply.status is PkiStatus.PENDING
    assert counted("security_events", stage=stage) > before


@pytest.mark.parametrize("answer", ["issued", "rejected"])
async def test_after_a_forged_end_the_enrollment_goes_on_as_a_new_attempt(
    world: World, answer: str
) -> None:
    world.others.answer, world.others.forge = answer, STRANGER
    await world.enroll()
    world.others.answer, world.others.forge = "issued", None

    assert (await world.enroll()).status is PkiStatus.SUCCESS
    assert [e.attempt for e in world.others.seen] == [0, 1]


async def test_a_forged_hint_does_not_keep_the_true_end_away(world: World) -> None:
    world.others.answer = "nothing"
    waiting = asyncio.create_task(world.enroll())
    await until(lambda: world.others.seen)
    world.others.answer = "rejected"
    stage, forged = world.others.message(world.enrollment(), world.requests()[0])
    headers = forged.headers | {"Scepstream-Subject": world.enrollment().subject(stage)}
    world.outcomes.on_hint("gw.gw-1", forged.payload + b" ", headers)
    await turn()
    world.others.answer = "issued"
    await world.others.end(world.enrollment(), world.requests()[0])

    assert (await waiting).status is PkiStatus.SUCCESS


async def test_a_planted_attempt_does_not_lock_a_device_out(world: World) -> None:
    """A gateway taken over can append under any name of an attempt."""
    assert (await world.enroll()).status is PkiStatus.SUCCESS
    await append(world.bus, world.enrollment().prefix() + "x.request", Message(b"{}", {}))

    assert (await world.enroll()).status is PkiStatus.SUCCESS


# Shards


async def test_a_repeat_after_a_change_of_shards_finds_the_older_one(make: Make) -> None:
    epochs = (Epoch(0, ("0",)), Epoch(NOW + 100, ("1",)))
    world = await make(epochs=epochs, shards=("0", "1"))
    first = await world.enroll()
    world.clock.seconds = NOW + 200
    second = await world.enroll()

    assert world.certificate(first) == world.certificate(second)
    assert (len(world.requests("0")), len(world.requests("1"))) == (1, 0)
    assert (await world.poll()).status is PkiStatus.SUCCESS


async def test_a_new_attempt_stays_on_the_older_shard(make: Make) -> None:
    epochs = (Epoch(0, ("0",)), Epoch(NOW + 10, ("1",)))
    world = await make(epochs=epochs, shards=("0", "1"))
    world.others.answer = "rejected"
    await world.enroll()
    world.clock.seconds = NOW + 40
    await world.enroll()

    assert [(e.shard, e.attempt) for e in world.others.seen] == [("0", 0), ("0", 1)]


async def test_a_fresh_request_after_a_change_goes_to_the_new_shard(make: Make) -> None:
    epochs = (Epoch(0, ("0",)), Epoch(NOW - 10, ("1",)))
    world = await make(epochs=epochs, shards=("0", "1"))
    await world.enroll()

    assert [e.shard for e in world.others.seen] == ["1"]


async def test_after_the_window_an_older_shard_is_not_asked(make: Make) -> None:
    epochs = (Epoch(0, ("0",)), Epoch(NOW + 10, ("1",)))
    world = await make(epochs=epochs, shards=("0", "1"))
    await world.enroll()
    world.clock.seconds = NOW + 11 + DAY
    await world.enroll()

    assert [e.shard for e in world.others.seen] == ["0", "1"]


# What never comes on the log


async def refused(world: World, body: bytes) -> FailInfo | None:
    """The failInfo of a message that leaves no trace on the log."""
    reply = await world.send(body)
    assert reply.status is PkiStatus.FAILURE
    assert world.requests() == []
    return reply.fail_info


@pytest.mark.parametrize("body", [b"", b"junk", b"\x30\x80\x00\x00"])
async def test_what_is_no_message_cannot_be_answered(world: World, body: bytes) -> None:
    with pytest.raises(UnanswerableError):
        await world.send(body)


async def test_a_wrong_signature_is_a_bad_message_check(world: World) -> None:
    body = pki_message(world.device, world.ra, sign=lambda _: bytes(256))

    assert await refused(world, body) is FailInfo.BAD_MESSAGE_CHECK


async def test_a_message_to_another_recipient_is_a_bad_message_check(
    world: World, device: Identity
) -> None:
    assert await refused(world, pki_message(device, device)) is FailInfo.BAD_MESSAGE_CHECK


async def test_all_failures_behind_decryption_look_the_same(
    world: World, ra: Identity, device: Identity
) -> None:
    replies = [
        await world.send(body)
        for body in (
            pki_message(device, device),
            pki_message(device, ra, b"no csr"),
            pki_message(device, ra, csr(device.key, sign=lambda _: bytes(256))),
        )
    ]

    assert {(r.fail_info, r.fail_info_text) for r in replies} == {(FailInfo.BAD_MESSAGE_CHECK, "")}


async def test_a_legacy_digest_is_a_bad_algorithm(world: World, make: Make) -> None:
    body = pki_message(world.device, world.ra, digest="sha1")
    assert await refused(world, body) is FailInfo.BAD_ALG

    legacy = await make(legacy=True)
    assert (await legacy.send(body)).status is PkiStatus.SUCCESS


@pytest.mark.parametrize("kind", [b"1", b"3", b"18", b"23", b"99"])
async def test_other_message_types_are_a_bad_request(world: World, kind: bytes) -> None:
    content = enveloped(device_csr(world.device), recipient(world.ra))
    attributes = [*scep_attributes(message_type=tlv(PRINTABLE, kind)), *cms_attributes(content)]

    assert await refused(world, signed(content, world.device, attributes)) is FailInfo.BAD_REQUEST


async def test_without_the_bus_there_is_no_answer(world: World) -> None:
    """The device is told 503 and comes again; a FAILURE would end it."""
    world.bus.connected = False

    with pytest.raises(BusUnavailableError):
        await world.enroll()


async def test_nobody_is_left_waiting_for_what_was_answered(world: World) -> None:
    await world.enroll()
    await world.enroll()

    assert not world.outcomes._waiting


# Certificates


async def test_a_certificate_for_another_key_is_a_forgery(world: World, ra: Identity) -> None:
    """Even of the trusted issuer."""
    world.others.device = ra

    assert (await world.enroll()).status is PkiStatus.PENDING


async def test_a_certificate_of_another_ca_is_a_forgery(world: World) -> None:
    world.others.ca = pki.local_ca(ec.derive_private_key(77, ec.SECP256R1()))

    assert (await world.enroll()).status is PkiStatus.PENDING


@pytest.mark.parametrize(
    "subject",
    [DEVICE_NAME, name(("2.5.4.3", PRINTABLE, b"dev_ice!@*")), name(("2.5.4.3", 0x14, b"\xe4"))],
    ids=["plain", "illegal printable", "T61"],
)
async def test_a_certificate_is_passed_on_whatever_its_subject(
    world: World, subject: bytes
) -> None:
    """Windows 11 sends such names; the issuer copies them byte for byte."""
    issued = world.others.issued
    world.others.issued = lambda sha256, key: issued(sha256, key, subject)  # type: ignore[method-assign]

    assert (await world.enroll()).status is PkiStatus.SUCCESS
