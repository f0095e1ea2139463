"""RA certificates that the issuer renews: when, as what, and never for anybody else."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cli.up.authority import Authority, make_ra, make_tls
from services.issuer.lints import first_error
from services.issuer.ra import RaRenewer
from shared.log.envelope import Message, authenticate_as
from shared.log.events.certificates import ServiceCertificateIssued
from shared.log.streams import CERTS
from shared.log.subjects import ra_renewed
from shared.scep.certificate import read_certificate
from shared.x509.key_ids import spki_sha256
from tests.support import pki
from tests.support.world import ISSUER, NOW, STRANGER, TRUSTED_ISSUERS, append_signed, messages_of
from tests.unit.services.issuer.revocations import DAY, World, make_world

LIFE = 730 * DAY
DUE = LIFE * 2 // 3


@pytest.fixture
def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return around(ec_key)


def around(key: ec.EllipticCurvePrivateKey, years: int = 10) -> World:
    """An issuer whose RA certificate begins now."""
    begin = dt.datetime.fromtimestamp(NOW, dt.UTC)
    end = begin + dt.timedelta(days=365 * years)
    ca = pki.local_ca(key, start=begin - dt.timedelta(days=1), end=end)
    ra = x509.load_pem_x509_certificate(make_ra(Authority(ca.certificate, key), "signing", NOW))
    return make_world(ca, ra_certificates=(pki.der(ra),))


def renewer(world: World) -> RaRenewer:
    return RaRenewer(world.bus, world.keeper.live, world.clock)


def old(world: World) -> x509.Certificate:
    return x509.load_der_x509_certificate(world.authorities.ra_certificates[0])


def key(world: World) -> str:
    return spki_sha256(read_certificate(world.authorities.ra_certificates[0]).spki)


def renewed(world: World) -> list[x509.Certificate]:
    events = [
        authenticate_as(ServiceCertificateIssued, stored, TRUSTED_ISSUERS)
        for stored in messages_of(world.bus, CERTS)
        if stored.subject.startswith("ra.") and stored.payload != b"{}"
    ]
    return [x509.load_der_x509_certificate(event.certificate) for event in events]


async def test_it_is_renewed_when_two_thirds_are_over_and_once(world: World) -> None:
    world.clock.seconds = NOW + DUE - 7200
    await renewer(world).look()
    assert renewed(world) == []

    world.clock.seconds = NOW + DUE
    for _ in range(3):
        await renewer(world).look()
    (found,) = renewed(world)
    assert found.not_valid_after_utc > old(world).not_valid_after_utc
    assert found.not_valid_before_utc.timestamp() == NOW + DUE - 60


async def test_the_new_one_has_the_key_the_name_and_the_usages_of_the_old(world: World) -> None:
    world.clock.seconds = NOW + DUE
    await renewer(world).look()

    (found,) = renewed(world)
    before = old(world)
    assert found.public_key() == before.public_key()
    assert (found.subject, found.issuer) == (before.subject, before.issuer)
    assert found.serial_number != before.serial_number
    assert {e.oid: (e.critical, e.value) for e in found.extensions} == {
        e.oid: (e.critical, e.value) for e in before.extensions
    }
    found.verify_directly_issued_by(world.ca.certificate)
    assert first_error(pki.der(found)) == ""


async def test_the_renewed_one_is_renewed_in_its_turn(world: World) -> None:
    for turn in (1, 2, 3):
        world.clock.seconds = NOW + turn * DUE + turn * 3600
        await renewer(world).look()
    assert len(renewed(world)) == 3


async def test_it_ends_with_its_ca_and_is_not_renewed_for_hours(
    ec_key: ec.EllipticCurvePrivateKey,
) -> None:
    world = around(ec_key, years=3)
    world.clock.seconds = NOW + DUE
    await renewer(world).look()
    (found,) = renewed(world)
    assert found.not_valid_after_utc == world.ca.certificate.not_valid_after_utc

    world.clock.seconds = NOW + 3 * 365 * DAY - 3 * 3600
    await renewer(world).look()
    assert len(renewed(world)) == 1


async def test_one_that_has_ended_is_renewed_too(world: World) -> None:
    world.clock.seconds = NOW + LIFE + 30 * DAY
    await renewer(world).look()
    assert len(renewed(world)) == 1


async def test_another_cas_certificate_is_not_renewed(
    world: World, rsa_key: rsa.RSAPrivateKey
) -> None:
    other = pki.local_ca(rsa_key, "Other CA")
    stranger = make_world(other, ra_certificates=world.authorities.ra_certificates)
    stranger.clock.seconds = NOW + DUE
    await renewer(stranger).look()
    assert renewed(stranger) == []


async def test_forged_events_neither_stop_nor_replace_it(world: World) -> None:
    await world.bus.append(ra_renewed(ISSUER, key(world), 0), Message(b"{}", {}))
    event = ServiceCertificateIssued(
        issuer="local",
        serial="01",
        ca_spki_sha256=world.ca.pin,
        purpose="ra",
        certificate=world.authorities.ra_certificates[0],
    )
    forged = ra_renewed(ISSUER, "00" * 32, 0)
    await append_signed(world.bus, forged, event, STRANGER)
    world.clock.seconds = NOW + DUE
    await renewer(world).look()

    places = [s.subject for s in messages_of(world.bus, CERTS)]
    assert ra_renewed(ISSUER, key(world), 1) in places


async def test_a_devices_certificate_is_not_renewed_though_a_file_names_it(world: World) -> None:
    """Whoever takes a gateway can write the file."""
    serial = read_certificate(world.authorities.ra_certificates[0]).serial.hex()
    await world.issue(serial)
    world.clock.seconds = NOW + DUE
    await renewer(world).look()
    assert renewed(world) == []


async def test_a_certificate_with_another_usage_is_not_renewed(
    ec_key: ec.EllipticCurvePrivateKey,
) -> None:
    begin = dt.datetime.fromtimestamp(NOW, dt.UTC)
    ca = pki.local_ca(ec_key, start=begin, end=begin + dt.timedelta(days=3650))
    tls = make_tls(Authority(ca.certificate, ec_key), ["localhost"], NOW)
    der = pki.der(x509.load_pem_x509_certificate(tls))
    world = make_world(ca, ra_certificates=(der,))
    world.clock.seconds = NOW + 300 * DAY
    await renewer(world).look()
    assert renewed(world) == []
