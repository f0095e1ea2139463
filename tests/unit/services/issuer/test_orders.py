import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shared.bus.series import Series
from shared.log.envelope import (
    EventSigner,
    Message,
    Stored,
    UnreadableEventError,
    authenticate_as,
    decode,
)
from shared.log.events.certificates import (
    CertificateStatus,
    CertificateStatusChanged,
    KeyCompromised,
)
from shared.log.events.commands import RevocationReason
from shared.log.subjects import certificate_status, key_compromised, revocation_order
from tests.unit import pki
from tests.unit.services.issuer.revocations import KEY, World, make_world, serial
from tests.unit.world import (
    ISSUER,
    ISSUING,
    NOW,
    SERIAL,
    STRANGER,
    TRUSTED_ISSUERS,
    VALIDATOR,
    append,
    counted,
    messages_of,
    signed_event,
)

SUPERSEDED = RevocationReason.SUPERSEDED
HOLD = RevocationReason.CERTIFICATE_HOLD
RELEASE = RevocationReason.REMOVE_FROM_CRL


@pytest.fixture
def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return make_world(pki.local_ca(ec_key))


def statuses(world: World) -> list[Stored]:
    return [s for s in messages_of(world.bus, "CERTS") if ".status." in s.subject]


def revocations(world: World) -> list[CertificateStatusChanged]:
    return [
        authenticate_as(CertificateStatusChanged, stored, TRUSTED_ISSUERS)
        for stored in statuses(world)
    ]


def marks(world: World) -> list[Stored]:
    return [s for s in messages_of(world.bus, "CERTS") if ".compromised." in s.subject]


async def ordered(world: World, order: Stored) -> tuple[bool, str]:
    """What is answered to an order."""
    await world.orders.handle(order)
    answer = world.answer(order)
    return answer.done, answer.detail


async def test_an_order_revokes_publishes_and_is_answered(world: World) -> None:
    await world.issue()
    order = await world.order()
    world.clock.seconds += 60

    assert await ordered(world, order) == (True, f"revoked; on CRL number {NOW + 60}")
    (revoked,) = revocations(world)
    assert (revoked.serial, revoked.ca_spki_sha256) == (SERIAL, world.ca.pin)
    assert (revoked.reason, revoked.operator) == (RevocationReason.SUPERSEDED, "op")
    assert revoked.revoked_at == NOW
    assert revoked.request_sha256 == order.sha256()
    assert statuses(world)[0].subject == certificate_status(ISSUER, SERIAL, 0)
    assert await world.revoked() == [SERIAL]


async def test_an_order_handled_twice_revokes_once_and_keeps_its_answer(world: World) -> None:
    await world.issue()
    order = await world.order()
    answer = await ordered(world, order)
    before = revocations(world)
    world.clock.seconds += 3600

    assert await ordered(world, order) == answer
    assert revocations(world) == before
    assert await world.revoked() == [SERIAL]


async def test_a_kill_before_the_crl_is_made_up_for(world: World) -> None:
    """The revocation is on the log; redelivered, the order publishes and answers."""
    await world.issue()
    order = await world.order()
    await world.revoke(request_sha256=order.sha256(), order=order.sequence)

    assert (await ordered(world, order))[0]
    assert len(revocations(world)) == 1
    assert await world.revoked() == [SERIAL]


async def test_a_second_order_corrects_the_reason_on_record_and_on_the_crl(world: World) -> None:
    await world.issue()
    await ordered(world, await world.order())
    world.clock.seconds += 60
    second = await world.order(reason=RevocationReason.KEY_COMPROMISE, attempt=1)

    assert (await ordered(world, second))[0]
    first, changed = revocations(world)
    assert (first.reason, changed.reason) == (SUPERSEDED, RevocationReason.KEY_COMPROMISE)
    assert changed.status is CertificateStatus.REASON_CHANGED
    assert changed.revoked_at == first.revoked_at
    (entry,) = await world.crl()
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    assert len(marks(world)) == 1


async def test_an_order_on_hold_and_its_release_come_and_go_on_the_crl(world: World) -> None:
    await world.issue()
    done, detail = await ordered(world, await world.order(reason=HOLD))
    assert (done, detail.partition(";")[0]) == (True, "on hold")
    assert await world.revoked() == [SERIAL]
    release = await world.order(reason=RELEASE, attempt=1)
    done, detail = await ordered(world, release)

    assert (done, detail.partition(";")[0]) == (True, "released")
    assert await world.revoked() == []
    assert marks(world) == []


async def test_an_order_delivered_again_after_a_later_one_takes_nothing_back(world: World) -> None:
    await world.issue()
    hold, release = await world.order(reason=HOLD), await world.order(reason=RELEASE, attempt=1)
    await world.orders.handle(hold)
    await world.orders.handle(release)
    await world.orders.handle(hold)

    assert [r.status for r in revocations(world)] == ["held", "released"]
    assert await world.revoked() == []


async def test_what_is_not_on_hold_is_not_released(world: World) -> None:
    await world.issue()

    assert await ordered(world, await world.order(reason=RELEASE)) == (
        False, "the certificate is not on hold",
    )  # fmt: skip
    assert revocations(world) == []


@pytest.mark.parametrize("planted", [(0,), (0, 1, 2), (1,), tuple(range(40))])
async def test_planted_statuses_and_marks_do_not_keep_a_certificate_from_being_revoked(
    world: World, planted: tuple[int, ...]
) -> None:
    """An unsigned event in the place of the next number: the number after it is used."""
    await world.issue()
    for number in planted:
        await append(world.bus, certificate_status(ISSUER, SERIAL, number), Message(b"{}", {}))
        await append(world.bus, key_compromised(KEY, number), Message(b"{}", {}))
    before = counted("security_events", stage="certificate")

    assert (await ordered(world, await world.order(reason=RevocationReason.KEY_COMPROMISE)))[0]
    assert await world.revoked() == [SERIAL]
    assert counted("security_events", stage="certificate") > before
    trusted = TRUSTED_ISSUERS
    places = (certificate_status(ISSUER, SERIAL, "*"), key_compromised(KEY, "*"))
    for place, kind in zip(places, (CertificateStatusChanged, KeyCompromised), strict=True):
        newest = await Series(world.bus, "CERTS", place, kind, trusted, "certificate").newest()
        assert newest is not None
        assert newest.number not in planted


# Keys


@pytest.mark.parametrize("reason", RevocationReason)
async def test_a_compromise_alone_marks_the_key(world: World, reason: RevocationReason) -> None:
    await world.issue()
    order = await world.order(reason=reason)
    await ordered(world, order)

    if reason is not RevocationReason.KEY_COMPROMISE:
        assert marks(world) == []
        return
    (stored,) = marks(world)
    mark = authenticate_as(KeyCompromised, stored, TRUSTED_ISSUERS)
    assert stored.subject == key_compromised(KEY, 0)
    assert mark == KeyCompromised(request_sha256=order.sha256(), serial=SERIAL)


async def test_the_key_is_marked_before_the_certificate_is_revoked(world: World) -> None:
    """So that it never stands revoked and yet usable."""
    await world.issue()
    await ordered(world, await world.order(reason=RevocationReason.KEY_COMPROMISE))

    assert marks(world)[0].sequence < statuses(world)[0].sequence


async def test_a_compromise_found_later_still_marks_the_key(world: World) -> None:
    await world.issue()
    await ordered(world, await world.order())
    await ordered(world, await world.order(reason=RevocationReason.KEY_COMPROMISE, attempt=1))

    assert len(marks(world)) == 1


async def test_two_compromised_certificates_of_one_key_mark_it_once(world: World) -> None:
    await world.issue(serial(1))
    await world.issue(serial(2))
    for number in (1, 2):
        order = await world.order(serial(number), RevocationReason.KEY_COMPROMISE)
        assert (await ordered(world, order))[0]

    assert len(marks(world)) == 1
    assert await world.revoked() == [serial(1), serial(2)]


# Orders that are not carried out


async def test_an_order_for_an_unknown_serial_is_answered_with_no(world: World) -> None:
    assert await ordered(world, await world.order()) == (False, "no such certificate")
    assert revocations(world) == []


async def test_an_order_for_an_issuer_that_is_not_here_is_answered_with_no(world: World) -> None:
    order = await world.order(issuer="elsewhere")

    assert await ordered(world, order) == (False, "no such certificate")


async def test_an_order_for_a_ca_that_is_gone_is_answered_with_no(world: World) -> None:
    await world.issue(ca_spki_sha256="00" * 32)

    done, detail = await ordered(world, await world.order())
    assert (done, detail) == (False, "the certificate's CA is not here")
    assert revocations(world) == []


async def test_a_certificate_of_the_previous_ca_is_revoked_on_its_own_crl(
    ec_key: ec.EllipticCurvePrivateKey,
) -> None:
    old = pki.local_ca(ec.derive_private_key(31, ec.SECP256R1()), "Old CA")
    world = make_world(pki.local_ca(ec_key), old)
    await world.issue(ca_spki_sha256=old.pin)

    assert (await ordered(world, await world.order()))[0]
    assert await world.revoked(old) == [SERIAL]
    assert world.heads() == []


async def nothing_happens(world: World, order: Stored) -> None:
    before = counted("security_events", stage="order")
    await world.orders.handle(order)

    assert messages_of(world.bus, "OPS") == [order]
    assert revocations(world) == []
    assert counted("security_events", stage="order") == before + 1


@pytest.mark.parametrize("by", [STRANGER, ISSUING, VALIDATOR])
async def test_an_order_that_no_operator_signed_revokes_nothing(
    world: World, by: EventSigner
) -> None:
    await world.issue()

    await nothing_happens(world, await world.order(by=by))


async def test_an_order_moved_to_another_serial_revokes_nothing(world: World) -> None:
    await world.issue(serial(1))
    moved = await world.order(serial(2))
    messages = world.bus.streams["OPS"].messages
    del messages[moved.sequence]
    place = revocation_order(ISSUER, serial(1), 0)

    order = await append(world.bus, place, Message(moved.payload, dict(moved.headers)))
    await nothing_happens(world, order)


async def test_an_order_that_says_another_serial_than_its_place_is_answered_with_no(
    world: World,
) -> None:
    """Signed by an operator all the same: what was approved was the event's own words."""
    await world.issue(serial(1))
    await world.issue(serial(2))
    order = await world.order(serial(1), subject=revocation_order(ISSUER, serial(2), 0))

    assert await ordered(world, order) == (False, "the order is for another certificate")
    assert revocations(world) == []


async def test_a_forged_record_is_no_certificate_to_revoke(world: World) -> None:
    await world.issue()
    (stored,) = messages_of(world.bus, "CERTS")
    forged = signed_event(decode(stored.payload, stored.headers), stored.subject, STRANGER)
    del world.bus.streams["CERTS"].messages[stored.sequence]
    await append(world.bus, stored.subject, forged)

    with pytest.raises(UnreadableEventError):
        await world.orders.handle(await world.order())
    assert revocations(world) == []


async def test_giving_up_answers_the_order_with_no(world: World) -> None:
    order = await world.order()
    await world.orders.give_up(order)
    answer = world.answer(order)

    assert (answer.done, answer.detail) == (False, "the order could not be carried out")


async def test_giving_up_after_the_answer_changes_nothing(world: World) -> None:
    await world.issue()
    order = await world.order()
    answer = await ordered(world, order)
    await world.orders.give_up(order)

    assert (world.answer(order).done, world.answer(order).detail) == answer
