"""OCSP at the gateway: what it reads of requests, which response it serves, and for how long."""

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass

import pytest
from asn1crypto import ocsp as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import example, given
from hypothesis import strategies as st

from services.gateway.ocsp import Known, Reply, Statuses, TooManyReadsError, _keep
from services.gateway.ocsp_requests import (
    MALFORMED,
    TRY_LATER,
    UNAUTHORIZED,
    MalformedRequestError,
    read_request,
)
from services.issuer.connectors.local import LocalConnector
from services.issuer.responder import Responder
from shared.ca.chains import ChainBook
from shared.limits import OCSP_CACHED, OCSP_READS, OCSP_REQUEST_BYTES, SERIES_LENGTH
from shared.log.envelope import EventSigner, Message, encode
from shared.log.events.certificates import (
    CaChain,
    CertificateRecorded,
    CertificateStatus,
    CertificateStatusChanged,
)
from shared.log.events.commands import RevocationReason
from shared.log.subjects import certificate_issued, certificate_status, chain_subject, ocsp_response
from shared.runtime.live import Live
from tests.support import pki
from tests.support.messages import Identity
from tests.support.world import ISSUER, ISSUING, NOW, REQUEST_SHA256, append_signed, turn, until
from tests.unit.services.gateway.gateways import World, make_world
from tests.unit.services.issuer import issuers

SERIAL = "40" * 16
DAY = 86400


@dataclass
class Timer:
    """Monotonic seconds."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Site:
    """A gateway and an issuer with OCSP, on the bus in memory."""

    world: World
    statuses: Statuses
    responder: Responder
    timer: Timer

    async def issue(self, serial: str = SERIAL, by: EventSigner = ISSUING) -> None:
        record = CertificateRecorded(
            request_sha256=REQUEST_SHA256,
            enrollment=issuers.ENROLLMENT.prefix(),
            spki_sha256="11" * 32,
            subject="CN=device",
            not_before=NOW,
            not_after=NOW + 100 * DAY,
            serial=serial,
            ca_spki_sha256=self.world.ca.pin,
        )
        await append_signed(self.world.bus, certificate_issued(ISSUER, serial), record, by)
        await self.responder.publish(ISSUER, serial)
        await turn()

    async def revoke(self, serial: str = SERIAL) -> None:
        event = CertificateStatusChanged(
            request_sha256=REQUEST_SHA256,
            serial=serial,
            ca_spki_sha256=self.world.ca.pin,
            status=CertificateStatus.REVOKED,
            reason=RevocationReason.SUPERSEDED,
            revoked_at=NOW,
            operator="op",
            command=1,
        )
        place = certificate_status(ISSUER, serial, 0)
        await append_signed(self.world.bus, place, event, ISSUING)

    async def ask(self, serial: str = SERIAL, issuer: str = ISSUER) -> Reply:
        return await self.statuses.answer(issuer, request(self.world, serial))


@pytest.fixture
async def site(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> Site:
    world, timer = await make_world(device, ra, ec_key), Timer()
    chain = CaChain(certificates=world.ca.chain)
    await world.bus.put(chain_subject(ISSUER), encode(chain))
    chains = ChainBook.of(world.bus, world.enroller.live.current.chains())
    await chains.start()
    await until(lambda: not chains.missing())
    chains.stop()
    statuses = Statuses(world.bus, world.enroller.live, chains, world.clock, timer)
    await world.bus.on_hint("status.*", statuses.on_hint)
    connector = LocalConnector(world.ca, world.previous, ocsp_validity=4 * DAY)
    responder = Responder(world.bus, Live(issuers.settings(connector)), world.clock, "test")
    return Site(world, statuses, responder, timer)


def request(
    world: World, serial: str = SERIAL, algorithm: hashes.HashAlgorithm | None = None
) -> bytes:
    builder = ocsp.OCSPRequestBuilder()
    builder = builder.add_certificate(
        _leaf(serial), world.ca.certificate, algorithm or hashes.SHA1()
    )
    return builder.build().public_bytes(Encoding.DER)


def _leaf(serial: str) -> x509.Certificate:
    key = ec.derive_private_key(7, ec.SECP256R1())
    return pki.make_certificate(key.public_key(), key, serial=int(serial, 16))


def status(reply: Reply) -> ocsp.OCSPCertStatus:
    return ocsp.load_der_ocsp_response(reply.body).certificate_status


# Requests


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x30\x80" * 2000)
@example(b"\x30\x05\x30\x03\x30\x01\x30")
def test_bytes_are_a_request_or_refused(der: bytes) -> None:
    with contextlib.suppress(MalformedRequestError):
        read_request(der)


@given(st.integers(0, 120), st.integers(0, 255))
def test_an_altered_request_is_one_or_refused(place: int, value: int) -> None:
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        b"\x11" * 20, b"\x22" * 20, 0x404142, hashes.SHA1()
    )
    der = bytearray(builder.build().public_bytes(Encoding.DER))
    der[place % len(der)] = value
    with contextlib.suppress(MalformedRequestError):
        read_request(bytes(der))


def test_a_large_request_is_refused_unread() -> None:
    with pytest.raises(MalformedRequestError):
        read_request(b"\x30" * (OCSP_REQUEST_BYTES + 1))


def test_a_nonce_is_ignored() -> None:
    builder = (
        ocsp.OCSPRequestBuilder()
        .add_certificate_by_hash(b"\x11" * 32, b"\x22" * 32, 0x404142, hashes.SHA256())
        .add_extension(x509.OCSPNonce(b"n" * 32), critical=False)
    )
    asked = read_request(builder.build().public_bytes(Encoding.DER))

    assert asked is not None
    assert (asked.ca.algorithm, asked.ca.name_hash) == ("sha256", b"\x11" * 32)
    assert asked.serial == b"\x40\x41\x42"


# Responses


async def test_a_revoked_certificate_is_told_at_once_by_a_hint(site: Site) -> None:
    await site.issue()
    assert status(await site.ask()) is ocsp.OCSPCertStatus.GOOD
    await site.revoke()
    await site.responder.publish(ISSUER, SERIAL)
    await until(lambda: (ISSUER, SERIAL) not in site.statuses._known)
    assert status(await site.ask()) is ocsp.OCSPCertStatus.REVOKED


async def test_a_lost_hint_costs_a_minute(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.issue()
    await site.ask()
    await site.revoke()

    async def lost(*_: object) -> None:
        return None

    monkeypatch.setattr(site.world.bus, "hint", lost)
    await site.responder.publish(ISSUER, SERIAL)
    site.timer.seconds = 60
    assert status(await site.ask()) is ocsp.OCSPCertStatus.GOOD
    site.timer.seconds = 61
    assert status(await site.ask()) is ocsp.OCSPCertStatus.REVOKED


async def test_what_was_read_is_served_while_the_bus_is_away(site: Site) -> None:
    await site.issue()
    first = await site.ask()
    site.timer.seconds = 1000
    site.world.bus.connected = False

    assert (await site.ask()).body == first.body
    assert (await site.ask("41" * 16)).body == TRY_LATER
    site.world.clock.seconds = NOW + 4 * DAY
    assert (await site.ask()).body == TRY_LATER


async def test_a_response_that_has_ended_is_not_served(site: Site) -> None:
    await site.issue()
    await site.ask()
    site.world.clock.seconds = NOW + 4 * DAY - 1
    assert (await site.ask()).headers["cache-control"].startswith("public, max-age=1,")
    site.world.clock.seconds += 1
    assert (await site.ask()).body == TRY_LATER


async def test_an_unknown_certificate_is_unauthorized(site: Site) -> None:
    reply = await site.ask()
    assert (reply.body, reply.headers) == (UNAUTHORIZED, {"cache-control": "no-store"})


async def test_another_issuers_certificate_is_unauthorized(site: Site) -> None:
    await site.issue()
    assert (await site.ask(issuer="other")).body == UNAUTHORIZED
    named = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        b"\x11" * 20, b"\x22" * 20, int(SERIAL, 16), hashes.SHA1()
    )
    asked = named.build().public_bytes(Encoding.DER)
    assert (await site.statuses.answer(ISSUER, asked)).body == UNAUTHORIZED


async def test_several_certificates_in_one_request_are_unauthorized(site: Site) -> None:
    await site.issue()
    one = asn1.OCSPRequest.load(request(site.world))["tbs_request"]["request_list"][0]
    for requests, expected in (([one, one], UNAUTHORIZED), ([], MALFORMED)):
        der = asn1.OCSPRequest({"tbs_request": {"request_list": requests}}).dump()
        assert (await site.statuses.answer(ISSUER, der)).body == expected


async def test_forged_responses_beyond_count_are_answered_try_later(site: Site) -> None:
    for number in range(SERIES_LENGTH + 1):
        await site.world.bus.append(ocsp_response(ISSUER, SERIAL, number), Message(b"{}", {}))
    assert (await site.ask()).body == TRY_LATER


async def test_requests_that_wait_for_the_log_are_bounded(site: Site) -> None:
    await site.issue()
    never = asyncio.get_running_loop().create_future()

    async def waits(_: object) -> None:
        await never

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.statuses, "_fetch", waits)
        waiting = [asyncio.create_task(site.ask(f"40{n:030x}")) for n in range(OCSP_READS // 2)]
        await turn()
    assert (await site.ask()).body == TRY_LATER  # the other half is for known ones
    never.set_result(None)
    assert {(await each).body for each in waiting} == {UNAUTHORIZED}
    assert status(await site.ask()) is ocsp.OCSPCertStatus.GOOD


async def test_an_overloaded_gateway_serves_an_older_response_for_minutes_only(site: Site) -> None:
    await site.issue()
    await site.ask()

    async def overloaded(_: object) -> None:
        raise TooManyReadsError("too many")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.statuses, "_read", overloaded)
        site.timer.seconds = 300
        assert status(await site.ask()) is ocsp.OCSPCertStatus.GOOD
        site.timer.seconds = 301
        assert (await site.ask()).body == TRY_LATER


async def test_a_hint_during_a_read_is_not_lost(site: Site) -> None:
    await site.issue()
    fetch, begun, goes_on = site.statuses._fetch, asyncio.Event(), asyncio.Event()

    async def slowly(certificate: tuple[str, str]) -> Known | None:
        found = await fetch(certificate)
        begun.set()
        await goes_on.wait()
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.statuses, "_fetch", slowly)
        first = asyncio.create_task(site.ask())
        await begun.wait()
        await site.revoke()
        await site.responder.publish(ISSUER, SERIAL)
        await turn()
        goes_on.set()
        await first
    assert status(await site.ask()) is ocsp.OCSPCertStatus.REVOKED


async def test_what_is_kept_is_bounded_and_small(site: Site) -> None:
    await site.issue()
    whole = request(site.world)
    assert len(whole) < 128
    await site.ask()
    for number in range(10):  # requests with a nonce, and about certificates that do not exist
        nonce = x509.OCSPNonce(number.to_bytes(200, "big"))
        builder = ocsp.OCSPRequestBuilder().add_certificate(
            _leaf(SERIAL), site.world.ca.certificate, hashes.SHA1()
        )
        large = builder.add_extension(nonce, critical=False).build().public_bytes(Encoding.DER)
        assert status(await site.statuses.answer(ISSUER, large)) is ocsp.OCSPCertStatus.GOOD
        await site.ask(f"41{number:030x}")
    assert list(site.statuses._asked) == [(ISSUER, whole)]


def test_the_longest_unused_leaves_a_full_cache() -> None:
    cache: OrderedDict[int, int] = OrderedDict()
    for number in range(OCSP_CACHED + 1):
        _keep(cache, number, number)
        cache.move_to_end(0)
    assert len(cache) == OCSP_CACHED
    assert 0 in cache
    assert 1 not in cache
