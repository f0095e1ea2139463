import asyncio
import itertools
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.local import LocalCa
from shared.bus.core import BusUnavailableError
from shared.ca.crls import newest_head, read_crl
from shared.limits import SERIES_LENGTH
from shared.log.envelope import Message, UnreadableEventError
from shared.log.events.certificates import CertificateStatus
from shared.log.events.commands import RevocationReason
from shared.log.streams import CRLS
from shared.log.subjects import crl_chunk, crl_head
from tests.support import golden, pki
from tests.support.world import (
    ISSUER,
    NOW,
    STRANGER,
    TRUSTED_ISSUERS,
    append_signed,
    counted,
    messages_of,
    until,
)
from tests.unit.services.issuer.revocations import DAY, World, make_world, serial

HALF = 7 * DAY // 2
HOLD = RevocationReason.CERTIFICATE_HOLD


@pytest.fixture
def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return make_world(pki.local_ca(ec_key))


@pytest.fixture
def old() -> LocalCa:
    return pki.local_ca(ec.derive_private_key(31, ec.SECP256R1()), "Old CA")


# When there is a new one


async def test_a_ca_without_a_crl_gets_its_first(world: World) -> None:
    await world.keeper.look()

    (head,) = world.heads()
    assert (head.number, head.this_update, head.next_update) == (NOW, NOW, NOW + 7 * DAY)
    assert (head.issuer, head.position, head.chunks) == (ISSUER, 0, 1)
    assert await world.revoked() == []


async def test_its_validity_is_the_configured_one(ec_key: ec.EllipticCurvePrivateKey) -> None:
    world = make_world(pki.local_ca(ec_key), crl_validity=3600)
    await world.keeper.look()

    assert world.heads()[0].next_update == NOW + 3600


@pytest.mark.parametrize(("later", "expected"), [(0, 1), (HALF, 1), (HALF + 1, 2), (8 * DAY, 2)])
async def test_at_half_its_time_it_is_signed_anew(world: World, later: int, expected: int) -> None:
    await world.keeper.look()
    world.clock.seconds += later
    await world.keeper.look()

    assert [head.number for head in world.heads()] == [NOW, NOW + 1][:expected]
    assert world.heads()[-1].this_update in (NOW, NOW + later)


async def test_looking_at_what_is_fresh_changes_nothing(world: World) -> None:
    await world.keeper.look()
    before = messages_of(world.bus, CRLS)
    await world.keeper.look()
    await world.another_keeper().look()

    assert messages_of(world.bus, CRLS) == before


async def test_each_active_ca_has_its_own_and_a_planned_one_none(
    ec_key: ec.EllipticCurvePrivateKey, old: LocalCa
) -> None:
    planned = pki.local_ca(ec.derive_private_key(32, ec.SECP256R1()), "Next CA")
    world = make_world(pki.local_ca(ec_key), old, planned=planned)
    await world.keeper.look()

    assert [len(world.heads(ca)) for ca in (world.ca, old, planned)] == [1, 1, 0]
    assert (await world.crl(old)).issuer == old.certificate.subject


# What stands in it


async def test_it_holds_every_revocation_since_the_one_before(world: World) -> None:
    await world.keeper.look()
    await world.revoke(serial(2))
    await world.publish()
    await world.revoke(serial(1))
    await world.publish()

    assert await world.revoked() == [serial(1), serial(2)]
    assert [head.position for head in world.heads()] == [0, 1, 2]
    assert [head.number for head in world.heads()] == [NOW, NOW + 1, NOW + 2]


async def test_signed_anew_it_still_holds_what_it_held(world: World) -> None:
    await world.revoke(serial(1))
    await world.keeper.look()
    world.clock.seconds += HALF + 1
    await world.keeper.look()

    assert len(world.heads()) == 2
    assert await world.revoked() == [serial(1)]


async def test_each_ca_revokes_its_own_certificates(
    ec_key: ec.EllipticCurvePrivateKey, old: LocalCa
) -> None:
    world = make_world(pki.local_ca(ec_key), old)
    await world.revoke(serial(1))
    await world.revoke(serial(2), ca_spki_sha256=old.pin)
    await world.keeper.look()

    assert await world.revoked() == [serial(1)]
    assert await world.revoked(old) == [serial(2)]
    assert world.heads()[-1].position == world.heads(old)[-1].position == 2


async def test_another_issuers_revocations_are_not_in_it(world: World) -> None:
    _, event = golden.EVENTS["CertificateStatusChanged", 1]
    await append_signed(world.bus, "cert.elsewhere.40.status.0", event, STRANGER)
    before = counted("security_events", stage="revoked")
    await world.keeper.look()

    assert await world.revoked() == []
    assert counted("security_events", stage="revoked") == before


async def test_a_forged_revocation_is_reported_and_passed_over(world: World) -> None:
    """It must neither stand in the CRL nor keep others out of it."""
    await world.revoke(serial(1), STRANGER)
    await world.revoke(serial(2))
    before = counted("security_events", stage="revoked")
    await world.publish()

    assert await world.revoked() == [serial(2)]
    assert world.heads()[-1].position == 2
    assert counted("security_events", stage="revoked") == before + 1


async def test_a_forged_revocation_is_looked_at_once(world: World) -> None:
    await world.revoke(serial(1), STRANGER)
    await world.publish()
    before = counted("security_events", stage="revoked")
    await world.publish()

    assert counted("security_events", stage="revoked") == before


# Together with other keepers


async def test_two_keepers_that_race_publish_two_numbers_and_lose_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is faster by just one step: it has read the same log."""
    await world.publish()
    await world.revoke(serial(1))
    faster, append = world.another_keeper(), world.bus.append

    async def racing(subject: str, message: Message) -> int:
        if ".head." in subject:
            monkeypatch.setattr(world.bus, "append", append)
            await faster.publish(ISSUER, world.authorities, world.ca)
            await world.revoke(serial(2))
        return await append(subject, message)

    monkeypatch.setattr(world.bus, "append", racing)
    number = await world.publish()

    assert [head.number for head in world.heads()] == [NOW, NOW + 1, NOW + 2]
    assert number == NOW + 2
    assert await world.revoked() == [serial(1), serial(2)]


async def test_of_two_first_crls_one_counts_and_the_other_follows_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster, append = world.another_keeper(), world.bus.append

    async def racing(subject: str, message: Message) -> int:
        if ".head." in subject:
            monkeypatch.setattr(world.bus, "append", append)
            await faster.publish(ISSUER, world.authorities, world.ca)
        return await append(subject, message)

    monkeypatch.setattr(world.bus, "append", racing)
    await world.publish()

    assert [head.number for head in world.heads()] == [NOW, NOW + 1]


# Pieces


async def test_a_big_crl_stands_in_pieces_and_is_read_as_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.issuer.crl_keeper.CHUNK_BYTES", 100)
    for number in range(20):
        await world.revoke(serial(number))
    await world.publish()

    (head,) = world.heads()
    sizes = [
        len(s.payload) for s in messages_of(world.bus, CRLS) if f".{head.sha256}." in s.subject
    ]
    assert len(sizes) == head.chunks > 5
    assert set(sizes[:-1]) == {100}
    assert await world.revoked() == [serial(number) for number in range(20)]


async def test_the_head_comes_last_so_that_it_never_points_to_nothing(world: World) -> None:
    await world.publish()
    head = world.heads()[0]
    places = [s.subject for s in messages_of(world.bus, CRLS)]

    assert places == [crl_chunk(ISSUER, head.sha256, 0), crl_head(ISSUER, world.ca.pin, NOW)]


async def test_a_piece_that_is_not_there_yet_is_waited_for(world: World) -> None:
    await world.publish()
    messages = world.bus.streams[CRLS].messages
    del messages[min(messages)]

    with pytest.raises(BusUnavailableError):
        await read_crl(world.bus, world.heads()[0], world.ca.chain[0])


@pytest.mark.parametrize("payload", [b"", b"\x30\x00", b"another CRL"])
async def test_pieces_that_the_ca_did_not_sign_are_no_crl(world: World, payload: bytes) -> None:
    await world.publish()
    head = world.heads()[0]
    messages = world.bus.streams[CRLS].messages
    del messages[min(messages)]
    await world.bus.append(crl_chunk(ISSUER, head.sha256, 0), Message(payload, {}))

    with pytest.raises(UnreadableEventError, match="not signed by the CA"):
        await read_crl(world.bus, head, world.ca.chain[0])


async def test_the_crl_of_another_ca_is_not_this_ones(world: World, old: LocalCa) -> None:
    await world.publish()

    with pytest.raises(UnreadableEventError, match="not signed by the CA"):
        await read_crl(world.bus, world.heads()[0], old.chain[0])


@pytest.mark.parametrize("planted", [(0,), (0, 1, 2), (10**9,)])
async def test_forged_heads_do_not_keep_a_crl_from_being_published(
    world: World, planted: tuple[int, ...]
) -> None:
    """Whoever holds an issuer's bus key can occupy numbers; they are passed over."""
    await world.revoke(serial(1))
    _, event = golden.EVENTS["CrlPublished", 1]
    for number in planted:
        place = crl_head(ISSUER, world.ca.pin, NOW + number)
        await append_signed(world.bus, place, event, STRANGER)
    number = await world.publish()
    last = await newest_head(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS)

    assert number == next(NOW + n for n in range(9) if n not in planted)
    assert last is not None
    assert last.number == number


async def test_a_forged_head_after_the_newest_does_not_hide_it(world: World) -> None:
    await world.publish()
    _, event = golden.EVENTS["CrlPublished", 1]
    await append_signed(world.bus, crl_head(ISSUER, world.ca.pin, NOW + 9), event, STRANGER)
    await world.revoke(serial(1))

    assert await world.publish() == NOW + 1


async def test_of_two_crls_that_are_made_anew_at_once_the_last_holds_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither follows the other, so no number is taken twice, and both are appended."""
    _, event = golden.EVENTS["CrlPublished", 1]
    for number in range(SERIES_LENGTH + 2):
        place = crl_head(ISSUER, world.ca.pin, NOW + 5000 + number)
        await append_signed(world.bus, place, event, STRANGER)
    await world.revoke(serial(1))
    slow, applied, go_on = world.another_keeper(), asyncio.Event(), asyncio.Event()
    append = slow._append

    async def late(*arguments: Any) -> bool:
        applied.set()
        await go_on.wait()
        return await append(*arguments)

    monkeypatch.setattr(slow, "_append", late)
    running = asyncio.create_task(slow.publish(ISSUER, world.authorities, world.ca))
    await applied.wait()
    await world.revoke(serial(2))
    await world.publish()
    go_on.set()
    await running
    last = await newest_head(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS)
    assert last is not None
    crl = x509.load_der_x509_crl((await read_crl(world.bus, last, world.ca.chain[0])).der)

    assert {f"{each.serial_number:x}" for each in crl} == {serial(1), serial(2)}


@pytest.mark.slow
async def test_a_crl_is_not_signed_again_for_each_of_many_forged_heads(world: World) -> None:
    """Else a thief with an issuer's bus key keeps the CA signing, and the log filling."""
    _, event = golden.EVENTS["CrlPublished", 1]
    for number in range(500):
        place = crl_head(ISSUER, world.ca.pin, NOW + number)
        await append_signed(world.bus, place, event, STRANGER)
    number = await world.publish()
    pieces = [m for m in messages_of(world.bus, CRLS) if ".head." not in m.subject]

    assert NOW + 500 <= number < NOW + 500 + 2**33
    assert len(pieces) <= 20
    assert await world.publish() == number + 1


async def test_a_crl_is_made_from_all_revocations_where_forged_heads_hide_the_newest(
    world: World,
) -> None:
    """What a thief with an issuer's bus key plants must not keep a revocation from the CRL."""
    await world.revoke(serial(1))
    before = await world.publish()
    _, event = golden.EVENTS["CrlPublished", 1]
    for number in range(SERIES_LENGTH + 2):
        place = crl_head(ISSUER, world.ca.pin, NOW + 5000 + number)
        await append_signed(world.bus, place, event, STRANGER)
    await world.revoke(serial(2))
    await world.keeper.look()
    last = await newest_head(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS)
    assert last is not None
    crl = x509.load_der_x509_crl((await read_crl(world.bus, last, world.ca.chain[0])).der)
    hidden = last.number

    assert hidden > before
    assert {f"{each.serial_number:x}" for each in crl} == {serial(1), serial(2)}
    assert await world.publish() == hidden + 1


async def test_a_forged_head_is_not_believed(world: World) -> None:
    _, event = golden.EVENTS["CrlPublished", 1]
    await append_signed(world.bus, crl_head(ISSUER, world.ca.pin, NOW), event, STRANGER)

    assert await newest_head(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS) is None


async def test_a_released_certificate_leaves_the_next_crl(world: World) -> None:
    await world.revoke(serial(1), status=CertificateStatus.HELD, reason=HOLD)
    await world.revoke(serial(2))
    await world.publish()
    assert await world.revoked() == [serial(1), serial(2)]
    await world.revoke(serial(1), place=1, status=CertificateStatus.RELEASED, reason=HOLD)
    await world.publish()

    assert await world.revoked() == [serial(2)]


# When CRLs have left the log


async def test_it_is_made_anew_where_every_crl_has_left_the_log(world: World) -> None:
    """The CRLS stream forgets after 90 days, the CERTS stream never."""
    await world.revoke(serial(1))
    await world.publish()
    await world.publish()
    last = world.heads()[-1].number
    world.bus.streams[CRLS].messages.clear()
    world.clock.seconds += 91 * DAY
    await world.keeper.look()

    (head,) = world.heads()
    assert head.number > last
    assert await world.revoked() == [serial(1)]


# While it runs


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.issuer.crl_keeper._RETRY_SECONDS", 0.001)
    monkeypatch.setattr("services.issuer.crl_keeper._LOOK_SECONDS", 600)


async def test_a_keeper_looks_when_it_starts_and_when_it_is_asked(
    world: World,
    impatient: None,  # noqa: ARG001 - patience
) -> None:
    running = asyncio.create_task(world.keeper.run())
    await until(world.heads)
    world.clock.seconds += 8 * DAY
    world.keeper.look_now()
    await until(lambda: len(world.heads()) == 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_keeper_outlives_an_outage_and_any_other_error(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    impatient: None,  # noqa: ARG001 - patience
) -> None:
    errors = itertools.chain([BusUnavailableError("away"), ValueError("a bug")])
    look = world.keeper.look

    async def looking(*_: Any) -> None:
        if (error := next(errors, None)) is not None:
            raise error
        await look()

    monkeypatch.setattr(world.keeper, "look", looking)
    running = asyncio.create_task(world.keeper.run())
    await until(world.heads)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert len(world.heads()) == 1
