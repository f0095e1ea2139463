"""Partitions of a CA's CRL (RFC 5280 s5.2.5), beside the complete one."""

import asyncio
import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.local import LocalCa
from shared.ca.crls import crl_heads, newest_head, read_crl
from shared.ca.partitions import Partition, Partitioning, partition_of
from shared.log.envelope import authenticate_as
from shared.log.events.certificates import CertificateStatus, CertificateStatusChanged
from shared.log.events.commands import RevocationReason
from shared.log.streams import CERTS, CRLS
from shared.log.subjects import certificate_status
from tests.support import pki
from tests.support.world import ISSUER, NOW, STRANGER, TRUSTED_ISSUERS, messages_of, until
from tests.unit.services.issuer.revocations import DAY, World, make_world, serial

FOUR = Partitioning((4,), ("http://crl.example/crl/local", "http://backup.example/crl/"))
END = NOW + DAY
HOLD = RevocationReason.CERTIFICATE_HOLD


def key(number: int) -> str:
    """The digest of a certificate's key."""
    return hashlib.sha256(bytes((number,))).hexdigest()


def partitioned(ca: LocalCa, partitioning: Partitioning) -> LocalCa:
    return replace(ca, ceilings=replace(ca.ceilings, partitioning=partitioning))


@pytest.fixture
def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return make_world(partitioned(pki.local_ca(ec_key), FOUR))


async def crl(world: World, partition: Partition) -> x509.CertificateRevocationList:
    head = await newest_head(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS, partition)
    assert head is not None
    assert (head.partitions, head.partition) == (partition.count, partition.number)
    return x509.load_der_x509_crl((await read_crl(world.bus, head, world.ca.chain[0])).der)


async def listed(world: World, partition: Partition) -> set[str]:
    return {f"{each.serial_number:x}" for each in await crl(world, partition)}


async def everywhere(world: World) -> list[set[str]]:
    """What is on each of the four partitions."""
    return [await listed(world, partition) for partition in FOUR.partitions]


async def revoke(world: World, number: int, **changes: object) -> Partition:
    await world.revoke(serial(number), spki_sha256=key(number), not_after=END, **changes)
    return partition_of(key(number), 4)


async def test_every_partition_gets_its_first_crl_and_names_its_urls(world: World) -> None:
    await world.keeper.look()

    for partition in FOUR.partitions:
        found = await crl(world, partition)
        point = found.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        names = point.value.full_name
        assert point.critical
        assert names is not None
        assert tuple(name.value for name in names) == FOUR.points(world.ca.pin, partition)
        assert not point.value.only_contains_user_certs
        assert not point.value.indirect_crl
        assert found.is_signature_valid(world.ca.certificate.public_key())  # type: ignore[arg-type]
    assert [n for n, _ in enumerate(await world.crl())] == []


async def test_the_partitions_together_list_what_the_complete_crl_lists(world: World) -> None:
    for number in range(20):
        partition = await revoke(world, number)
        await world.publish()
        assert serial(number) in await listed(world, partition)
    found = await everywhere(world)

    assert sum(map(len, found)) == 20
    assert set.union(*found) == set(await world.revoked())
    assert all(found)


async def test_a_revocation_publishes_the_complete_crl_and_one_partition(world: World) -> None:
    await world.keeper.look()
    before = {m.subject for m in messages_of(world.bus, CRLS) if ".head" in m.subject}
    partition = await revoke(world, 1)
    await world.publish()
    after = {m.subject for m in messages_of(world.bus, CRLS) if ".head" in m.subject}

    kinds = sorted(subject.split(".")[3] for subject in after - before)
    assert kinds == ["head", f"head-{partition.name}"]


async def test_a_keeper_that_starts_later_continues_the_partitions(world: World) -> None:
    first = await revoke(world, 1)
    await world.publish()
    world.keeper = world.another_keeper()
    second = await revoke(world, 2)
    await world.publish()

    assert serial(1) in await listed(world, first)
    assert serial(2) in await listed(world, second)


async def test_a_keeper_does_not_publish_what_another_has_published(world: World) -> None:
    await world.keeper.look()
    other = world.another_keeper()
    await other.look()
    partition = await revoke(world, 1)
    await world.publish()
    await other.publish(ISSUER, world.authorities, world.ca)
    heads = [m for m in messages_of(world.bus, CRLS) if f".head-{partition.name}." in m.subject]

    assert len(heads) == 2
    assert await listed(world, partition) == {serial(1)}


async def test_certificates_that_are_held_and_released_come_and_go(world: World) -> None:
    partition = await revoke(world, 1, status=CertificateStatus.HELD, reason=HOLD)
    await world.publish()
    assert await listed(world, partition) == {serial(1)}
    await revoke(world, 1, place=1, status=CertificateStatus.RELEASED, reason=HOLD)
    await world.publish()
    assert await everywhere(world) == [set()] * 4


async def test_entries_of_expired_certificates_leave_the_partitions_too(world: World) -> None:
    partition = await revoke(world, 1)
    await world.publish()
    world.clock.seconds = END + 4 * DAY
    await world.keeper.look()
    assert await listed(world, partition) == {serial(1)}
    world.clock.seconds += 4 * DAY
    await world.keeper.look()
    assert await everywhere(world) == [set()] * 4


# What earlier releases recorded


async def test_the_key_that_an_earlier_release_did_not_record_is_read_from_the_record(
    world: World,
) -> None:
    await world.issue(serial(1), spki_sha256=key(1))
    await world.revoke(serial(1))
    await world.publish()
    own = partition_of(key(1), 4)

    assert [p for p in FOUR.partitions if await listed(world, p)] == [own]


async def test_a_certificate_whose_key_is_unknown_is_on_every_partition(world: World) -> None:
    await world.issue(serial(1), by=STRANGER, spki_sha256=key(1))
    await world.revoke(serial(1))
    await world.publish()
    assert await everywhere(world) == [{serial(1)}] * 4

    changed = CertificateStatus.REASON_CHANGED
    own = await revoke(world, 1, place=1, status=changed)
    await world.publish()
    assert [p for p in FOUR.partitions if await listed(world, p)] == [own]


# Another number of partitions


async def test_partitions_of_an_earlier_number_are_published_as_long_as_they_are_configured(
    world: World,
) -> None:
    await revoke(world, 1)
    await world.publish()
    both = replace(FOUR, counts=(2, 4))
    world.ca = partitioned(world.ca, both)
    await revoke(world, 2)
    await world.publish()
    for number in (1, 2):
        for count in (2, 4):
            assert serial(number) in await listed(world, partition_of(key(number), count))

    world.ca = partitioned(world.ca, replace(FOUR, counts=(2,)))
    await revoke(world, 3)
    await world.publish()
    assert serial(3) in await listed(world, partition_of(key(3), 2))
    assert serial(3) not in await listed(world, partition_of(key(3), 4))


# Many at once


async def test_revocations_during_a_publication_share_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.keeper.look()
    go_on, waiting, append = asyncio.Event(), asyncio.Event(), world.keeper._append

    async def slow(*arguments: object) -> bool:
        waiting.set()
        await go_on.wait()
        return await append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.keeper, "_append", slow)
    await revoke(world, 0)
    publications = [asyncio.create_task(world.publish())]
    await waiting.wait()
    for number in range(1, 10):
        await revoke(world, number)
        publications.append(asyncio.create_task(world.publish()))
    shelf = world.keeper._shelves[ISSUER, world.ca.pin]
    await until(lambda: shelf.next_publication is not None)
    publications[3].cancel()
    go_on.set()
    numbers = await asyncio.gather(*publications, return_exceptions=True)

    assert len(await world.revoked()) == 10
    assert {n for n in numbers if isinstance(n, int)} == {NOW + 1, NOW + 2}
    heads = crl_heads(world.bus, ISSUER, world.ca.chain[0], TRUSTED_ISSUERS)
    assert len([entry async for entry in heads.all()]) == 3


async def test_a_partition_that_lacks_a_change_is_published_at_the_next_look(world: World) -> None:
    """The issuer that carried out the command was not reloaded yet, so it knew no partitions."""
    await world.keeper.look()
    other, plain = world.another_keeper(), partitioned(world.ca, Partitioning())
    partition = await revoke(world, 1)
    await other.publish(ISSUER, world.authorities, plain)
    assert await listed(world, partition) == set()
    before = len(messages_of(world.bus, CRLS))
    await world.keeper.look()
    assert await listed(world, partition) == {serial(1)}
    assert len(messages_of(world.bus, CRLS)) == before + 2


async def test_a_revocation_records_the_certificates_end_and_key(world: World) -> None:
    """Else every issuer would read the record again."""
    await world.issue(serial(1), spki_sha256=key(1), not_after=END)
    await world.orders.handle(await world.order(serial(1)))
    place = certificate_status(ISSUER, serial(1), 0)
    (stored,) = (m for m in messages_of(world.bus, CERTS) if m.subject == place)
    event = authenticate_as(CertificateStatusChanged, stored, TRUSTED_ISSUERS)

    assert (event.not_after, event.spki_sha256) == (END, key(1))
    assert await listed(world, partition_of(key(1), 4)) == {serial(1)}
