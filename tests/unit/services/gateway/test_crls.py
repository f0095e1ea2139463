"""CRLs at the gateway: GetCRL (RFC 8894 s4.6) and the URL that certificates name."""

import asyncio
from dataclasses import replace
from email.utils import parsedate_to_datetime

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.app import Gateway
from services.gateway.settings import Settings
from services.issuer.connectors.local import LocalCa, LocalConnector
from services.issuer.crl_keeper import CrlKeeper
from shared.bus.core import BusUnavailableError
from shared.ca.chains import ChainBook
from shared.ca.partitions import Partitioning
from shared.limits import SERIES_LENGTH
from shared.log.envelope import Stored, encode
from shared.log.events.certificates import CaChain, CertificateStatusChanged
from shared.log.streams import CRLS
from shared.log.subjects import certificate_status, chain_subject, crl_head
from shared.runtime.live import Live
from shared.scep.certrep import CertRep, PkiStatus, read_crls
from shared.scep.errors import FailInfo
from shared.scep.request import issuer_and_serial
from tests.support import golden, pki
from tests.support.messages import COMMON_NAME, UTF8, Identity, name
from tests.support.world import ISSUER, ISSUING, STRANGER, append_signed, counted, turn, until
from tests.unit.services.gateway.gateways import World, make_world
from tests.unit.services.gateway.test_lookups import enrolled, message
from tests.unit.services.issuer import issuers

TWO = Partitioning((2,), ("http://crl.example/crl/local",))
NEXT_KEY = ec.derive_private_key(41, ec.SECP256R1())


@pytest.fixture
async def world(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> World:
    return await make_world(device, ra, ec_key)


async def publish(world: World, ca: LocalCa | None = None) -> int:
    """What an issuer does; the number of the new CRL."""
    authorities = LocalConnector(world.ca, world.previous)
    keeper = CrlKeeper(world.bus, Live(issuers.settings(authorities)), world.clock)
    return await keeper.publish(ISSUER, authorities, ca or world.ca)


def number(der: bytes) -> int:
    crl = x509.load_der_x509_crl(der)
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def get_crl(world: World, issuer: bytes, serial: bytes | None = None) -> CertRep:
    """The answer to who asks for the CRL of a certificate, of the CA's own unless another is."""
    cas = {ca.name: ca.parsed.serial for ca in (world.ca, *world.previous)}
    asked = cas.get(issuer, b"\x40") if serial is None else serial
    return await world.send(message(world, issuer_and_serial(issuer, asked), b"22"))


async def read(world: World, ca: LocalCa | None = None) -> bytes:
    return (await world.enroller.lookups.crl_of(ISSUER, (ca or world.ca).chain[0])).der


async def test_get_crl_answers_with_the_newest_one_alone(world: World) -> None:
    await publish(world)
    newest = await publish(world)
    reply = await get_crl(world, world.ca.name)

    assert reply.status is PkiStatus.SUCCESS
    (der,) = read_crls(world.opened(reply))
    assert number(der) == newest
    assert x509.load_der_x509_crl(der).is_signature_valid(world.ca.certificate.public_key())  # type: ignore[arg-type]  # RSA or EC


async def test_get_crl_is_answered_for_a_certificate_that_the_ca_issued(world: World) -> None:
    newest = await publish(world)
    serial, _ = await enrolled(world)
    (der,) = read_crls(world.opened(await get_crl(world, world.ca.name, serial)))

    assert number(der) == newest


@pytest.mark.parametrize("serial", [b"\x40" * 16, b"\x01"])
async def test_get_crl_for_a_serial_that_nobody_issued_is_bad_cert_id(
    world: World, serial: bytes
) -> None:
    """Were any taken, the CRL would show that an altered envelope decrypts."""
    await publish(world)
    reply = await get_crl(world, world.ca.name, serial)

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


async def test_get_crl_for_an_unknown_issuer_is_bad_cert_id(world: World) -> None:
    await publish(world)
    reply = await get_crl(world, name((COMMON_NAME, UTF8, b"Other CA")))

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


async def test_after_a_rollover_each_ca_has_its_crl(world: World) -> None:
    old = world.ca
    world.roll_over(pki.local_ca(NEXT_KEY, "Next CA"))
    for ca in (old, world.ca):
        await publish(world, ca)
        (der,) = read_crls(world.opened(await get_crl(world, ca.name)))
        assert x509.load_der_x509_crl(der).issuer == ca.certificate.subject


async def test_before_the_first_crl_there_is_no_answer(world: World) -> None:
    """Which is 503: the issuer is about to publish one."""
    with pytest.raises(BusUnavailableError):
        await get_crl(world, world.ca.name)


# What is kept


async def test_a_crl_is_read_in_full_once_while_it_is_the_newest(
    world: World,
) -> None:
    await publish(world)
    first = await read(world)
    world.bus.streams[CRLS].messages = {
        n: s for n, s in world.bus.streams[CRLS].messages.items() if ".head." in s.subject
    }

    assert await read(world) == first


async def test_a_newer_crl_is_seen_at_once(world: World) -> None:
    await publish(world)
    await read(world)
    newest = await publish(world)

    assert number(await read(world)) == newest


async def test_all_who_ask_while_the_log_is_read_share_the_next_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of the URL is one read at a time of the log's leader, and what is newer is seen."""
    await publish(world)
    reads, go_on, last = 0, asyncio.Event(), world.bus.get_last_from_leader

    async def waiting(stream: str, subject: str) -> Stored | None:
        nonlocal reads
        reads += 1
        found = await last(stream, subject)
        await go_on.wait()
        return found

    monkeypatch.setattr(world.bus, "get_last_from_leader", waiting)
    first = asyncio.create_task(read(world))
    await until(lambda: reads == 1)
    monkeypatch.undo()
    newest = await publish(world)
    monkeypatch.setattr(world.bus, "get_last_from_leader", waiting)
    later = [asyncio.create_task(read(world)) for _ in range(50)]
    later[0].cancel()
    await turn()
    assert reads == 1
    go_on.set()
    found = await asyncio.gather(*later[1:])

    assert {number(der) for der in found} == {newest}
    assert number(await first) == newest - 1
    assert reads == 2


async def test_a_read_that_failed_is_not_shared_with_who_asks_later(world: World) -> None:
    world.bus.connected = False
    with pytest.raises(BusUnavailableError):
        await read(world)
    world.bus.connected = True
    newest = await publish(world)

    assert number(await read(world)) == newest


async def test_while_the_bus_is_away_the_last_one_is_given(world: World) -> None:
    """It holds for days: better than none."""
    await publish(world)
    first = await read(world)
    world.bus.connected = False

    assert await read(world) == first


async def test_without_bus_and_any_crl_read_there_is_no_answer(world: World) -> None:
    await publish(world)
    world.bus.connected = False

    with pytest.raises(BusUnavailableError):
        await read(world)


# What is not authentic


async def forge(world: World) -> None:
    _, event = golden.EVENTS["CrlPublished", 1]
    place = crl_head(ISSUER, world.ca.pin, 9_999_999_999)
    await append_signed(world.bus, place, event, STRANGER)


async def test_after_a_forged_head_the_last_true_one_is_given(world: World) -> None:
    await publish(world)
    first = await read(world)
    before = counted("security_events", stage="crl")
    await forge(world)

    assert await read(world) == first
    assert counted("security_events", stage="crl") == before + 1


async def test_after_more_forged_heads_than_are_read_the_last_true_one_is_given(
    world: World, device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    await publish(world)
    first = await read(world)
    _, event = golden.EVENTS["CrlPublished", 1]
    for n in range(SERIES_LENGTH + 2):
        place = crl_head(ISSUER, world.ca.pin, 9_999_999_999 + n)
        await append_signed(world.bus, place, event, STRANGER)

    assert await read(world) == first
    other = await make_world(device, ra, ec_key)
    other.bus.streams[CRLS] = world.bus.streams[CRLS]
    with pytest.raises(BusUnavailableError):
        await read(other)


async def test_a_forged_head_alone_is_no_crl(world: World) -> None:
    await forge(world)

    with pytest.raises(BusUnavailableError):
        await read(world)


async def test_a_piece_that_was_exchanged_is_reported_and_no_crl(world: World) -> None:
    await publish(world)
    messages = world.bus.streams[CRLS].messages
    first = min(messages)
    messages[first] = replace(messages[first], payload=b"\x30\x00")
    before = counted("security_events", stage="crl")

    with pytest.raises(BusUnavailableError):
        await read(world)
    assert counted("security_events", stage="crl") == before + 1


# The URL


@pytest.fixture
async def rolled(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two CAs with a CRL each; of two profiles one alone still pins the old CA."""
    old = world.ca
    world.roll_over(pki.local_ca(NEXT_KEY, "Next CA"))
    for ca in (old, world.ca):
        await publish(world, ca)
    narrow, wide = (ISSUER, (world.ca.pin,)), (ISSUER, (world.ca.pin, old.pin))
    # In this order, which a set has only by chance.
    monkeypatch.setattr(Settings, "chains", lambda _: [narrow, wide])
    return world


async def fetched(world: World, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """What a relying party gets; the chains are read from the log first."""
    chain = CaChain(certificates=world.ca.chain, previous=(world.previous[0].chain[0],))
    await world.bus.put(chain_subject(ISSUER), encode(chain))
    settings = world.enroller.live.current
    chains = ChainBook.of(world.bus, settings.chains())
    await chains.start()
    await until(lambda: not chains.missing())
    gateway = Gateway(world.bus, Live(settings), chains, world.enroller, world.clock)
    transport = httpx.ASGITransport(gateway.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        found = await client.get(path, headers=headers)
    chains.stop()
    return found


async def test_the_url_of_an_issuer_is_its_current_cas_crl(rolled: World) -> None:
    found = await fetched(rolled, f"/crl/{ISSUER}.crl")

    assert found.status_code == 200
    assert found.headers["content-type"] == "application/pkix-crl"
    crl = x509.load_der_x509_crl(found.content)
    assert crl.issuer == rolled.ca.certificate.subject


async def test_the_url_with_a_key_is_that_cas_crl(rolled: World) -> None:
    for ca in (rolled.ca, rolled.previous[0]):
        found = await fetched(rolled, f"/crl/{ISSUER}/{ca.pin}.crl")

        assert found.status_code == 200
        assert x509.load_der_x509_crl(found.content).issuer == ca.certificate.subject


@pytest.mark.parametrize("path", ["/crl/other.crl", f"/crl/{ISSUER}/{'00' * 32}.crl"])
async def test_any_other_crl_is_404(rolled: World, path: str) -> None:
    assert (await fetched(rolled, path)).status_code == 404


# How long it may be kept


async def test_a_crl_may_be_kept_until_its_end(rolled: World) -> None:
    found = await fetched(rolled, f"/crl/{ISSUER}.crl")
    crl = x509.load_der_x509_crl(found.content)
    assert crl.next_update_utc is not None
    left = int(crl.next_update_utc.timestamp() - rolled.clock())

    assert found.headers["cache-control"] == f"public, max-age={left}"
    assert parsedate_to_datetime(found.headers["last-modified"]) == crl.last_update_utc
    assert parsedate_to_datetime(found.headers["expires"]) == crl.next_update_utc

    rolled.clock.seconds += left + 1  # the issuer is away: nobody may keep it any more
    found = await fetched(rolled, f"/crl/{ISSUER}.crl")
    assert found.headers["cache-control"] == "public, max-age=0"


async def test_a_crl_that_is_known_is_not_sent_again(rolled: World) -> None:
    path = f"/crl/{ISSUER}.crl"
    whole = await fetched(rolled, path)
    tag, date = whole.headers["etag"], whole.headers["last-modified"]
    same = [
        {"if-none-match": tag},
        {"if-none-match": f'"other", W/{tag}'},
        {"if-none-match": "*"},
        {"if-modified-since": date},
    ]
    for headers in same:
        found = await fetched(rolled, path, headers)
        assert (found.status_code, found.content) == (304, b"")
        assert found.headers["etag"] == tag
        assert found.headers["cache-control"] == whole.headers["cache-control"]
    other = [
        {"if-none-match": '"other"'},
        {"if-none-match": '"other"', "if-modified-since": date},
        {"if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"if-modified-since": "yesterday"},
        {"if-modified-since": "Thu, 01 Jan 2099 00:00:00 -0000"},
    ]
    for headers in other:
        assert (await fetched(rolled, path, headers)).content == whole.content


# Partitions


@pytest.fixture
async def partitioned(rolled: World) -> World:
    """The current CA's CRL in two partitions, of which a revoked certificate is on one."""
    rolled.ca = replace(rolled.ca, ceilings=replace(rolled.ca.ceilings, partitioning=TWO))
    live = rolled.enroller.live
    live.current = replace(live.current, partitionings={ISSUER: TWO})
    _, event = golden.EVENTS["CertificateStatusChanged", 1]
    assert isinstance(event, CertificateStatusChanged)
    revoked = msgspec.structs.replace(event, ca_spki_sha256=rolled.ca.pin, spki_sha256="00" * 32)
    place = certificate_status(ISSUER, event.serial, 0)
    await append_signed(rolled.bus, place, revoked, ISSUING)
    await publish(rolled)
    return rolled


async def test_each_partition_has_its_url_with_the_same_headers(partitioned: World) -> None:
    pin = partitioned.ca.pin
    listed = []
    for number in range(2):
        found = await fetched(partitioned, f"/crl/{ISSUER}/{pin}/2-{number}.crl")
        crl = x509.load_der_x509_crl(found.content)
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        url = f"http://crl.example/crl/local/{pin}/2-{number}.crl"
        assert point.critical
        assert point.value.full_name == [x509.UniformResourceIdentifier(url)]
        assert parsedate_to_datetime(found.headers["last-modified"]) == crl.last_update_utc
        assert parsedate_to_datetime(found.headers["expires"]) == crl.next_update_utc
        path = f"/crl/{ISSUER}/{pin}/2-{number}.crl"
        known = {"if-none-match": found.headers["etag"]}
        assert (await fetched(partitioned, path, known)).status_code == 304
        listed.append(len(crl))

    assert listed == [1, 0]


async def test_get_crl_and_the_url_of_the_issuer_give_the_complete_crl(partitioned: World) -> None:
    (der,) = read_crls(partitioned.opened(await get_crl(partitioned, partitioned.ca.name)))
    found = await fetched(partitioned, f"/crl/{ISSUER}.crl")
    crl = x509.load_der_x509_crl(found.content)

    assert found.content == der
    assert len(crl) == 1
    assert {each.oid for each in crl.extensions} == {
        x509.CRLNumber.oid,
        x509.AuthorityKeyIdentifier.oid,
    }


@pytest.mark.parametrize("name_", ["2-2", "1-0", "3-0", "02-0", "2-00", "0-0"])
async def test_a_partition_that_is_not_configured_is_404(partitioned: World, name_: str) -> None:
    path = f"/crl/{ISSUER}/{partitioned.ca.pin}/{name_}.crl"

    assert (await fetched(partitioned, path)).status_code == 404
