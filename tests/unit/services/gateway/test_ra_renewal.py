"""Renewed RA certificates at a gateway: which are taken over, and what becomes of their files."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from services.gateway.ra import assemble, read_pairs
from services.gateway.ra_renewal import RaRenewals
from services.gateway.settings import Profile
from services.issuer.connectors.local import LocalCa
from shared.ca.chains import ChainBook
from shared.log.envelope import EventSigner, encode
from shared.log.events.certificates import CaChain, ServiceCertificateIssued
from shared.log.subjects import chain_subject, ra_renewed
from shared.runtime.live import Live
from tests.support import pki
from tests.support.messages import Identity
from tests.support.world import ISSUER, ISSUING, NOW, STRANGER, append_signed, until
from tests.unit.services.gateway.gateways import World, make_world, settings

DAY = 86400
USAGE = ("digital_signature", "key_encipherment")


def moment(days: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(NOW + days * DAY, dt.UTC)


class Site:
    """A gateway with one RA pair from a file, and the certificates that an issuer renews."""

    def __init__(self, world: World, folder: Path, key: rsa.RSAPrivateKey) -> None:
        self.world, self.key = world, key
        self.path = pki.write_certificate(folder / "ra.pem", self.made(-100, 30))
        self.key_path = pki.write_key(folder / "ra.key", key)
        self.number = 0

    async def start(self) -> RaRenewals:
        bus = self.world.bus
        await bus.put(chain_subject(ISSUER), encode(CaChain(certificates=self.world.ca.chain)))
        found = settings({self.world.profile.name: self.profile()})
        chains = ChainBook.of(bus, found.chains())
        await chains.start()
        await until(lambda: not chains.missing())
        chains.stop()
        return RaRenewals(bus, Live(found), chains, self.world.clock)

    def profile(self) -> Profile:
        pairs = read_pairs(self.path, self.key_path)
        return replace(self.world.profile, ra=assemble(pairs, NOW), ra_pairs=tuple(pairs))

    def made(
        self, begin: int, end: int, ca: LocalCa | None = None, key: rsa.RSAPrivateKey | None = None
    ) -> x509.Certificate:
        by = ca or self.world.ca
        assert isinstance(by.key, ec.EllipticCurvePrivateKey)
        return pki.make_certificate(
            (key or self.key).public_key(), by.key, subject="RA", issuer="Test CA", usage=USAGE,
            start=moment(begin), end=moment(end),
        )  # fmt: skip

    async def renew(
        self, made: x509.Certificate, by: EventSigner = ISSUING, purpose: str = "ra"
    ) -> bytes:
        der = pki.der(made)
        event = ServiceCertificateIssued(
            issuer=ISSUER,
            serial=pki.certificate_serial(der).hex(),
            ca_spki_sha256=self.world.ca.pin,
            purpose=purpose,
            certificate=der,
        )
        place = ra_renewed(ISSUER, pki.pin(self.made(0, 1)), self.number)
        self.number += 1
        await append_signed(self.world.bus, place, event, by)
        return der


@pytest.fixture
async def site(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> Site:
    return Site(await make_world(device, ra, ec_key), tmp_path, ra.key)


def current(renewals: RaRenewals) -> tuple[bytes, ...]:
    (profile,) = renewals.live.current.profiles.values()
    return profile.ra.certificates


def decrypting(renewals: RaRenewals) -> list[bytes]:
    (profile,) = renewals.live.current.profiles.values()
    return [key.certificate.der for key in profile.ra.decryption]


async def test_a_renewed_certificate_is_shown_and_the_old_one_still_decrypts(site: Site) -> None:
    renewals = await site.start()
    old = current(renewals)[0]
    new = await site.renew(site.made(0, 300))
    await renewals.look()

    assert current(renewals) == (new,)
    assert decrypting(renewals) == [new, old]


async def test_its_file_has_both_and_the_next_start_too(site: Site) -> None:
    renewals = await site.start()
    old = current(renewals)[0]
    new = await site.renew(site.made(0, 300))
    for _ in range(2):
        await renewals.look()

    assert [pair.der for pair in read_pairs(site.path, site.key_path)] == [new, old]
    assert current(await site.start()) == (new,)


async def test_a_reload_keeps_it_where_the_file_cannot_be_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewals = await site.start()
    files = renewals.live.current
    new = await site.renew(site.made(0, 300))

    def refused(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("services.gateway.ra_renewal.mkstemp", refused)
    await renewals.look()
    assert current(renewals) == (new,)
    assert len(x509.load_pem_x509_certificates(site.path.read_bytes())) == 1

    renewals.live.current = renewals.beside(files)
    assert current(renewals) == (new,)


@pytest.mark.parametrize("wrong", ["key", "ca", "shorter", "signer", "purpose"])
async def test_what_does_not_continue_the_pair_is_not_taken_over(site: Site, wrong: str) -> None:
    renewals = await site.start()
    old = current(renewals)
    other = pki.local_ca(ec.derive_private_key(99, ec.SECP256R1()))
    made = {
        "key": site.made(0, 300, key=rsa.generate_private_key(65537, 2048)),
        "ca": site.made(0, 300, ca=other),
        "shorter": site.made(0, 20),
    }.get(wrong, site.made(0, 300))
    await site.renew(
        made,
        STRANGER if wrong == "signer" else ISSUING,
        "ocsp" if wrong == "purpose" else "ra",
    )
    await renewals.look()

    assert current(renewals) == old
    assert site.path.read_bytes() == x509.load_der_x509_certificate(old[0]).public_bytes(
        Encoding.PEM
    )
