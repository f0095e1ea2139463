"""When the entry of an expired certificate leaves the CRL (RFC 5280 s3.3)."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from shared.bus.series import SeriesTooLongError
from shared.ca.crls import crl_heads, newest_head, read_crl
from shared.limits import SERIES_LENGTH
from shared.log.envelope import Message
from shared.log.events.certificates import CertificateStatus
from shared.log.events.commands import RevocationReason
from shared.log.subjects import crl_head
from tests.support import golden, pki
from tests.support.world import ISSUER, NOW, STRANGER, TRUSTED_ISSUERS, append_signed
from tests.unit.services.issuer.revocations import DAY, World, make_world, serial

END = NOW + DAY
HOLD = RevocationReason.CERTIFICATE_HOLD


@pytest.fixture
def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return make_world(pki.local_ca(ec_key))


async def expired(world: World, number: int = 1, **changes: Any) -> None:
    """A certificate that was revoked, put on a CRL, and has expired a second ago."""
    await world.revoke(serial(number), not_after=END, **changes)
    await world.publish()
    world.clock.seconds = END + 1


async def hide_the_newest(world: World) -> None:
    """Plant more forged heads than are read."""
    _, event = golden.EVENTS["CrlPublished", 1]
    for number in range(SERIES_LENGTH + 2):
        place = crl_head(ISSUER, world.ca.pin, NOW + 5000 + number)
        await append_signed(world.bus, place, event, STRANGER)
    with pytest.raises(SeriesTooLongError):
        await crl_heads(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS).newest()


async def test_an_entry_is_on_one_crl_after_its_certificates_end_and_then_leaves(
    world: World,
) -> None:
    await expired(world)
    await world.publish()
    assert await world.revoked() == [serial(1)]
    await world.publish()
    assert await world.revoked() == []


async def test_a_crl_of_the_very_end_is_not_after_it(world: World) -> None:
    await world.revoke(serial(1), not_after=END)
    world.clock.seconds = END
    for _ in range(3):
        await world.publish()
    assert await world.revoked() == [serial(1)]


async def test_a_certificate_that_is_revoked_after_its_end_is_on_one_crl(world: World) -> None:
    await world.publish()
    world.clock.seconds = END + 1
    await world.publish()
    await world.revoke(serial(1), not_after=END)
    await world.publish()
    assert await world.revoked() == [serial(1)]
    await world.publish()
    assert await world.revoked() == []


async def test_what_an_issuer_with_a_fast_clock_published_does_not_count_as_later(
    world: World,
) -> None:
    """The log's own time of the head says when it was published."""
    await world.revoke(serial(1), not_after=END)
    fast = world.another_keeper()
    fast.clock = lambda: END + 3600.0
    await fast.publish(ISSUER, world.authorities, world.ca)
    await world.publish()

    assert await world.revoked() == [serial(1)]


async def test_an_entry_whose_certificates_end_is_unknown_stays(world: World) -> None:
    """It is of an earlier release, and its record is not there."""
    await world.revoke(serial(1))
    world.clock.seconds += 900 * DAY
    for _ in range(3):
        await world.keeper.look()
        await world.publish()

    assert await world.revoked() == [serial(1)]


async def test_a_forged_record_does_not_say_when_a_certificate_ends(world: World) -> None:
    await world.issue(serial(1), by=STRANGER, not_after=END)
    await world.revoke(serial(1))
    world.clock.seconds = END + 1
    for _ in range(3):
        await world.keeper.look()
        await world.publish()

    assert await world.revoked() == [serial(1)]


async def test_the_ends_of_earlier_releases_are_read_in_portions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.issuer.crl_keeper._RECORDS", 2)
    for number in range(5):
        await world.issue(serial(number), not_after=END)
        await world.revoke(serial(number))
    world.clock.seconds = END + 1
    left = []
    for _ in range(4):
        await world.keeper.look()
        await world.publish()
        left.append(len(await world.revoked()))

    assert left == [5 - 2, 5 - 4, 0, 0]


async def test_a_keeper_that_starts_later_reads_the_ends_too(world: World) -> None:
    await world.issue(serial(1), not_after=END)
    await expired(world)
    await world.publish()
    world.keeper = world.another_keeper()
    await world.keeper.look()
    await world.publish()

    assert await world.revoked() == []


async def test_a_keeper_that_does_not_know_the_ends_does_not_bring_an_entry_back(
    world: World,
) -> None:
    await expired(world)
    other = world.another_keeper()
    await other.publish(ISSUER, world.authorities, world.ca)
    await world.publish()
    assert await world.revoked() == []
    await other.publish(ISSUER, world.authorities, world.ca)
    assert await world.revoked() == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (CertificateStatus.REVOKED, CertificateStatus.REASON_CHANGED),
        (CertificateStatus.HELD, CertificateStatus.REVOKED),
    ],
)
async def test_a_later_change_does_not_bring_an_entry_back(
    world: World,
    before: CertificateStatus,
    after: CertificateStatus,
    restarted: bool,  # noqa: FBT001 - a case
) -> None:
    await expired(world, status=before)
    await world.publish()
    await world.publish()
    world.keeper = world.another_keeper() if restarted else world.keeper
    await world.revoke(serial(1), place=1, status=after, not_after=END)
    await world.publish()

    assert await world.revoked() == []


async def test_an_entry_that_changes_while_it_may_leave_leaves(world: World) -> None:
    await expired(world)
    await world.publish()
    changed = CertificateStatus.REASON_CHANGED
    await world.revoke(serial(1), place=1, status=changed, not_after=END)
    for _ in range(2):
        await world.publish()
    assert await world.revoked() == []


async def test_a_certificate_that_was_released_and_is_revoked_again_is_listed_again(
    world: World,
) -> None:
    await world.revoke(serial(1), status=CertificateStatus.HELD, reason=HOLD, not_after=END)
    await world.publish()
    released = CertificateStatus.RELEASED
    await world.revoke(serial(1), place=1, status=released, reason=HOLD, not_after=END)
    await world.publish()
    world.clock.seconds = END + 1
    await world.revoke(serial(1), place=2, not_after=END)
    await world.publish()

    assert await world.revoked() == [serial(1)]


async def test_of_two_keepers_that_race_neither_drops_what_was_on_no_crl_after_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one revokes and publishes while this one is about to drop."""
    await world.issue(serial(2), not_after=END)
    await expired(world)
    await world.publish()
    faster, append = world.another_keeper(), world.bus.append

    async def racing(subject: str, message: Message) -> int:
        if ".head." in subject:
            monkeypatch.setattr(world.bus, "append", append)
            await world.revoke(serial(2), not_after=END)
            await faster.publish(ISSUER, world.authorities, world.ca)
            assert serial(2) in await world.revoked()
        return await append(subject, message)

    monkeypatch.setattr(world.bus, "append", racing)
    await world.publish()
    assert await world.revoked() == [serial(2)]
    await world.keeper.look()
    await world.publish()

    assert await world.revoked() == []
    numbers = [head.number for head in world.heads()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_crl_that_is_rebuilt_neither_loses_an_entry_nor_brings_one_back(
    world: World,
    restarted: bool,  # noqa: FBT001 - a case
) -> None:
    """Forged heads hide the newest CRL: it is looked for behind them."""
    await world.revoke(serial(2), not_after=END + DAY)
    await expired(world)
    await world.publish()
    await world.publish()
    assert await world.revoked() == [serial(2)]
    await hide_the_newest(world)
    await world.revoke(serial(3), not_after=END + DAY)
    world.keeper = world.another_keeper() if restarted else world.keeper
    await world.publish()

    newest = await newest_head(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS)
    assert newest is not None
    crl = x509.load_der_x509_crl((await read_crl(world.bus, newest, world.ca.chain[0])).der)
    assert [f"{each.serial_number:x}" for each in crl] == [serial(2), serial(3)]


async def test_the_event_that_forged_ones_hide_is_found_in_few_reads(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        await world.publish()
    await hide_the_newest(world)
    reads, get_next = 0, world.bus.get_next_or_leader

    async def counting(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return await get_next(*arguments)

    monkeypatch.setattr(world.bus, "get_next_or_leader", counting)
    heads = crl_heads(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS)
    found = await heads.hidden()

    assert found is not None
    assert found.event.number == NOW + 19
    assert reads < 40


async def test_nothing_is_found_behind_forged_events_alone(world: World) -> None:
    await hide_the_newest(world)

    heads = crl_heads(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS)
    assert await heads.hidden() is None
