"""First start, and the renewal of what it made."""

import datetime as dt
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from cli.__main__ import app
from cli.up import authority, firststart, renewal
from cli.up.authority import RA_LIFETIME, Authority, make_tls
from cli.up.firststart import first_start, is_first
from cli.up.layout import Layout, UpError, open_directory
from cli.up.renewal import renew_connector, renew_ra
from services.audit import settings as audit
from services.gateway import settings as gateway
from services.issuer import settings as issuer
from services.validator import settings as validator
from shared.config.keys import read_ca_key_file, read_certificates
from shared.config.load import SettingsError, load
from shared.scep.algorithms import SHA256
from shared.scep.signed_data import write_signed_data
from tests.support import pki
from tests.support.messages import Identity
from tests.support.tools import need
from tests.support.world import NOW

pytestmark = pytest.mark.slow

CAS = Path(__file__).parents[3] / "vectors" / "cas"
DAY = 86400.0
DUE = NOW + RA_LIFETIME.total_seconds() - 29 * DAY
NOT_DUE = NOW + RA_LIFETIME.total_seconds() - 32 * DAY


class KilledError(Exception):
    """Where a process is killed in a test."""


@pytest.fixture(autouse=True)
def _two_rsa_keys(monkeypatch: pytest.MonkeyPatch, ra: Identity, device: Identity) -> None:
    """Certificates tell RA pairs apart; new keys for each would take seconds."""
    keys = [ra.key, device.key]

    def cycle(exponent: int, bits: int) -> Any:
        assert (exponent, bits) == (65537, 2048)
        keys.append(keys.pop(0))
        return keys[0]

    monkeypatch.setattr("cli.up.authority.rsa.generate_private_key", cycle)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A directory that was started once, with an EC CA."""
    found = open_directory(tmp_path / "data")
    first_start(found, "ec:p256", None, 20001, NOW)
    return found


def load_all(layout: Layout, now: float = NOW) -> Any:
    """What `up` and every service do at a start; the gateway's settings."""
    renew_connector(layout, now)
    configuration = load(layout.config, {})
    validator.read_settings(configuration, now)
    issuer.read_settings(configuration)
    audit.read_settings(configuration)
    return gateway.read_settings(configuration, now)


def ra_of(layout: Layout, use: str) -> x509.Certificate:
    return read_certificates(layout.ra(use))[0]


def kill_at_write(monkeypatch: pytest.MonkeyPatch, module: Any, count: int) -> None:
    """Be killed instead of writing the file number `count`."""
    real, left = module.write_private, [count]

    def write(path: Path, data: bytes) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        real(path, data)

    monkeypatch.setattr(module, "write_private", write)


# First start


def test_a_first_start_makes_what_every_service_needs(layout: Layout) -> None:
    found = load_all(layout)

    assert set(found.profiles) == {"demo", "legacy", "corp"}
    assert found.default_profile == "demo"
    assert found.servers.urls == ("nats://127.0.0.1:20001",)
    assert found.profiles["legacy"].legacy
    assert not is_first(layout)
    assert not layout.marker.exists()


def test_secrets_are_their_owners_alone(layout: Layout) -> None:
    files = [p for p in layout.root.rglob("*") if p.is_file()]

    assert {p.name: p.stat().st_mode & 0o077 for p in files} == dict.fromkeys(
        (p.name for p in files), 0
    )


def test_each_profile_has_a_challenge_of_its_own(layout: Layout) -> None:
    profiles = load(layout.config, {}).profiles
    challenges = {c for p in profiles.values() for c in p.challenge_password}

    assert len(challenges) == 2
    assert all(len(c) == 24 and c.isalnum() for c in challenges)


def test_the_ra_certificates_are_what_windows_asks_for(layout: Layout) -> None:
    ca = read_certificates(layout.ca_cert)[0]
    for use, bit in (("signing", "digital_signature"), ("encryption", "key_encipherment")):
        found = ra_of(layout, use)
        found.verify_directly_issued_by(ca)
        usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
        extended = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert getattr(usage, bit)
        assert [e.dotted_string for e in extended] == [
            "1.3.6.1.4.1.311.20.2.1",
            "1.3.6.1.5.5.7.3.4",  # emailProtection: openssl cms -verify wants it
        ]


@pytest.mark.parametrize("writes", [0, 1, 5, 10, 12, 14, 16, 18, 19])
def test_a_first_start_killed_at_any_point_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    layout = open_directory(tmp_path)
    with monkeypatch.context() as patch:
        kill_at_write(patch, firststart, writes)
        with pytest.raises(KilledError):
            first_start(layout, "ec:p256", None, 20001, NOW)

    assert is_first(layout)
    first_start(layout, "ec:p256", None, 20002, NOW)
    assert load_all(layout).servers.urls == ("nats://127.0.0.1:20002",)


def test_a_kill_after_the_version_was_written_is_a_finished_start(layout: Layout) -> None:
    layout.marker.touch()

    assert not is_first(layout)
    assert load_all(layout)


# A given CA


def given(directory: Path, key: Any, **options: Any) -> tuple[Path, Path]:
    certificate = pki.make_root(key, "Given CA", **options)
    cert_path = pki.write_certificate(directory / "given.pem", certificate)
    return cert_path, pki.write_key(directory / "given.key", key)


def sub_ca(directory: Path, key: Any, root_key: Any) -> tuple[Path, Path, list[x509.Certificate]]:
    """A sub-CA's files, the root first; and the chain in order."""
    root = pki.make_root(root_key, "Root")
    own = pki.make_certificate(
        key.public_key(), root_key, subject="Sub", issuer="Root",
        usage=("key_cert_sign", "crl_sign"), ca=True,
    )  # fmt: skip
    cert_path = pki.write_certificate(directory / "given.pem", root, own)
    return cert_path, pki.write_key(directory / "given.key", key), [own, root]


def test_a_given_sub_ca_is_copied_with_its_chain_in_order_and_devices_get_it(
    tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    root_key = ec.derive_private_key(98, ec.SECP256R1())
    cert_path, key_path, chain = sub_ca(tmp_path, ec_key, root_key)
    layout = open_directory(tmp_path / "data")
    first_start(layout, "rsa:2048", (cert_path, key_path), 20001, NOW)

    assert read_certificates(layout.ca_cert) == chain
    profiles = load_all(layout).profiles
    assert {p.ca_spki_sha256 for p in profiles.values()} == {(pki.pin(chain[0]),)}
    assert all(profile.include_chain for profile in profiles.values())


def test_a_root_stands_alone_in_replies(layout: Layout) -> None:
    assert not any(profile.include_chain for profile in load_all(layout).profiles.values())


def authority_of(certificate: x509.Certificate) -> bytes | None:
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return found.value.key_identifier


def test_what_a_ca_signs_names_it_by_its_own_key_identifier(tmp_path: Path) -> None:
    """Whatever method made it: openssl and strongSwan look for the CA by these bytes."""
    key_path = tmp_path / "ca.key"
    key_path.write_bytes((CAS / "ski7093.key").read_bytes())
    key_path.chmod(0o600)
    layout = open_directory(tmp_path / "data")
    first_start(layout, "rsa:2048", (CAS / "ski7093.pem", key_path), 20001, NOW)
    ca = read_certificates(layout.ca_cert)[0]
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    made = Authority(ca, read_ca_key_file(key_path))
    tls = x509.load_pem_x509_certificate(make_tls(made, ["host.example"], NOW))

    assert own != x509.SubjectKeyIdentifier.from_public_key(ca.public_key()).digest
    for certificate in (ra_of(layout, "signing"), ra_of(layout, "encryption"), tls):
        assert authority_of(certificate) == own


def test_openssl_verifies_what_the_ra_signs_without_being_told_its_purpose(
    tmp_path: Path, layout: Layout
) -> None:
    (tmp_path / "signed.der").write_bytes(
        write_signed_data(b"content", (), SHA256, load_all(layout).profiles["demo"].ra.signer)
    )
    command = [need("openssl", "openssl"), "cms", "-verify", "-inform", "DER", "-in", "signed.der"]
    done = subprocess.run(
        [*command, "-CAfile", str(layout.ca_cert)], cwd=tmp_path, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == b"content"


def refused(directory: Path, cert_path: Path, key_path: Path) -> str:
    """The complaint; the directory can be started again after it."""
    layout = open_directory(directory / "data")
    with pytest.raises(UpError) as error:
        first_start(layout, "rsa:2048", (cert_path, key_path), 20001, NOW)
    assert [path.name for path in layout.root.iterdir()] == ["lock"]
    return str(error.value)


def test_a_ca_key_of_another_certificate_is_refused(
    tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    cert_path, key_path = given(tmp_path, ec_key)
    pki.write_key(key_path, ec.derive_private_key(99, ec.SECP256R1()))

    assert "is not the key of" in refused(tmp_path, cert_path, key_path)


def test_a_missing_ca_file_is_named(tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey) -> None:
    cert_path, key_path = given(tmp_path, ec_key)
    key_path.unlink()

    assert str(key_path) in refused(tmp_path, cert_path, key_path)


def test_a_ca_that_has_ended_is_refused(tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey) -> None:
    ended = dt.datetime.fromtimestamp(NOW - DAY, dt.UTC)

    complaint = refused(tmp_path, *given(tmp_path, ec_key, end=ended))

    assert str(tmp_path) in complaint
    assert '"CN=Given CA" expired at 2025-12-31 00:00 UTC' in complaint


def test_what_stands_above_it_must_not_have_ended_either(
    tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    root_key = ec.derive_private_key(98, ec.SECP256R1())
    cert_path, key_path, chain = sub_ca(tmp_path, ec_key, root_key)
    ended = dt.datetime.fromtimestamp(NOW - DAY, dt.UTC)
    pki.write_certificate(cert_path, chain[0], pki.make_root(root_key, "Root", end=ended))

    assert '"CN=Root" expired' in refused(tmp_path, cert_path, key_path)


def test_a_ca_that_will_not_do_leaves_nothing_behind(tmp_path: Path) -> None:
    key_path = tmp_path / "encrypted.key"
    key_path.write_bytes((CAS / "encrypted.key").read_bytes())
    key_path.chmod(0o600)
    options = ["--ca-cert", str(CAS / "encrypted.pem"), "--ca-key", str(key_path)]
    done = CliRunner().invoke(app, ["up", "--data", str(tmp_path / "data"), *options])

    assert done.exit_code == 1
    assert "the key is encrypted" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_ca_that_was_exchanged_for_one_that_will_not_do_is_refused_at_the_next_start(
    layout: Layout, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    own = pki.make_certificate(
        ec_key.public_key(), ec_key, subject="A", issuer="A", usage=("crl_sign",), ca=True
    )
    pki.write_certificate(layout.ca_cert, own)
    pki.write_key(layout.root / "ca" / "ca.key", ec_key)

    with pytest.raises(SettingsError, match="without keyCertSign"):
        renew_ra(layout, NOT_DUE)


def test_a_ca_key_that_the_issuer_will_not_take_is_refused(tmp_path: Path) -> None:
    """At first start, not by an issuer that then never starts."""
    key = ec.derive_private_key(99, ec.SECP384R1())

    assert "P-256" in refused(tmp_path, *given(tmp_path, key))


# Renewal


def test_certificates_with_time_left_stay(layout: Layout) -> None:
    before = {p: p.read_bytes() for p in layout.root.rglob("*") if p.is_file()}

    assert renew_ra(layout, NOT_DUE) == []
    assert {p: p.read_bytes() for p in layout.root.rglob("*") if p.is_file()} == before


def test_certificates_about_to_end_are_replaced_by_the_same_ca(layout: Layout) -> None:
    old = ra_of(layout, "signing"), ra_of(layout, "encryption")
    assert renew_ra(layout, DUE) == ["signing", "encryption"]
    new = ra_of(layout, "signing"), ra_of(layout, "encryption")

    assert not set(old) & set(new)
    assert all(c.not_valid_after_utc.timestamp() > DUE + 600 * DAY for c in new)
    for certificate in new:
        certificate.verify_directly_issued_by(read_certificates(layout.ca_cert)[0])


def test_the_previous_encryption_pair_still_decrypts(layout: Layout) -> None:
    old = pki.der(ra_of(layout, "encryption"))
    renew_ra(layout, DUE)
    found = load_all(layout, DUE)

    for profile in found.profiles.values():
        current, previous = (key.certificate.der for key in profile.ra.decryption)
        assert current == pki.der(ra_of(layout, "encryption"))
        assert previous == old
        assert old not in profile.ra.certificates


def test_after_a_renewal_nothing_is_due(layout: Layout) -> None:
    renew_ra(layout, DUE)

    assert renew_ra(layout, DUE) == []


def test_the_next_renewal_replaces_the_previous_pair(layout: Layout) -> None:
    renew_ra(layout, DUE)
    second = pki.der(ra_of(layout, "encryption"))
    later = DUE + RA_LIFETIME.total_seconds() - 29 * DAY
    renew_ra(layout, later)

    decryption = load_all(layout, later).profiles["demo"].ra.decryption
    assert [key.certificate.der for key in decryption][1:] == [second]


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_renewal_killed_at_any_point_still_loads_and_is_finished_by_the_next_start(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    old = pki.der(ra_of(layout, "encryption"))
    with monkeypatch.context() as patch:
        kill_at_write(patch, renewal, writes)
        with pytest.raises(KilledError):
            renew_ra(layout, DUE)

    assert load_all(layout, DUE)
    assert "encryption" in renew_ra(layout, DUE)
    decryption = load_all(layout, DUE).profiles["demo"].ra.decryption
    assert [key.certificate.der for key in decryption][1:] == [old]


def test_a_configuration_without_these_pairs_is_the_operators_own(layout: Layout) -> None:
    for use in ("signing", "encryption"):
        layout.ra(use).unlink()

    assert renew_ra(layout, DUE) == []


def test_an_ra_certificate_never_outlives_its_ca(ec_key: ec.EllipticCurvePrivateKey) -> None:
    end = dt.datetime.fromtimestamp(NOW + 5 * DAY, dt.UTC)
    ca = authority.Authority(pki.make_root(ec_key, end=end), ec_key)
    made = x509.load_pem_x509_certificate(authority.make_ra(ca, "signing", NOW))

    assert made.not_valid_after_utc == end


@pytest.mark.parametrize("kind", ["ec:p256", "rsa:2048"])
def test_a_made_ca_can_sign_certificates_and_nothing_is_above_it(kind: str) -> None:
    made = authority.make_ca(kind, NOW).certificate

    made.verify_directly_issued_by(made)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert made.not_valid_before_utc.timestamp() < NOW < made.not_valid_after_utc.timestamp()


def test_the_stand_in_connectors_certificate_is_renewed_for_the_same_key(layout: Layout) -> None:
    path = layout.connector / "connector.pem"
    before = read_certificates(path)[0]

    due = NOW + 336 * DAY
    assert not renew_connector(layout, due - 3 * DAY)
    assert read_certificates(path) == [before]
    assert renew_connector(layout, due)
    after = read_certificates(path)[0]
    assert after.public_key() == before.public_key()
    assert after.subject == before.subject
    assert after.not_valid_after_utc.timestamp() > due + 300 * DAY
