from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from services.issuer.connectors.local import LocalCa, SigningError, read_local
from shared.config.load import SettingsError
from shared.config.sections import Configuration, LocalIssuerSection
from tests.support import pki
from tests.support.messages import Identity
from tests.support.templates import template


@pytest.fixture
def files(tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    """A CA's three files."""
    pki.write_key(tmp_path / "ca.key", ec_key)
    pki.write_certificate(tmp_path / "ca.pem", pki.make_root(ec_key))
    (tmp_path / "secret").write_bytes(b"s" * 32)
    (tmp_path / "secret").chmod(0o600)
    return tmp_path


def read(directory: Path, **changes: Any) -> LocalCa:
    values: dict[str, Any] = {
        "ca_cert_path": "ca.pem",
        "ca_key_path": "ca.key",
        "secret_path": "secret",
    }
    configuration = Configuration.model_construct(directory=directory)
    return read_local(configuration, LocalIssuerSection(**(values | changes))).current


def refused(directory: Path, file: str, **changes: Any) -> str:
    """The complaint, which names the file."""
    with pytest.raises(SettingsError) as error:
        read(directory, **changes)
    assert str(directory / file) in str(error.value)
    return str(error.value)


def test_a_ca_is_read_with_its_ceilings(files: Path) -> None:
    ca = read(files, max_ttl="10d", extended_key_usages=["clientAuth", "1.2.3.4"])

    assert ca.chain == (pki.der(ca.certificate),)
    assert ca.ceilings.ca_spki_sha256 == pki.pin(ca.certificate)
    assert ca.ceilings.ca_not_after == pki.END.timestamp()
    assert ca.ceilings.max_ttl == 10 * 86400
    assert ca.ceilings.extended_key_usages == {pki.CLIENT_AUTH, "1.2.3.4"}


def test_what_stands_above_the_ca_is_part_of_its_chain(
    files: Path, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    signs: dict[str, Any] = {"usage": ("key_cert_sign", "crl_sign"), "ca": True}
    top = pki.make_root(ec_key, "Top")
    above = pki.make_certificate(
        ec_key.public_key(), ec_key, subject="Above", issuer="Top", **signs
    )
    own = pki.make_certificate(
        ec_key.public_key(), ec_key, subject="Test CA", issuer="Above", **signs
    )
    pki.write_certificate(files / "ca.pem", own, above)
    pki.write_certificate(files / "chain.pem", top)

    ca = read(files, chain_path="chain.pem")
    assert ca.chain == (pki.der(own), pki.der(above), pki.der(top))


@pytest.mark.parametrize("file", ["ca.pem", "ca.key", "secret"])
def test_a_missing_file_is_named(files: Path, file: str) -> None:
    (files / file).unlink()

    assert "No such file" in refused(files, file)


@pytest.mark.parametrize("file", ["ca.key", "secret"])
def test_secrets_that_others_may_read_are_refused(files: Path, file: str) -> None:
    (files / file).chmod(0o660)

    assert "0660" in refused(files, file)


def test_a_key_of_another_certificate_is_refused(files: Path) -> None:
    pki.write_key(files / "ca.key", ec.generate_private_key(ec.SECP256R1()))

    assert "is not the key of" in refused(files, "ca.key")


def test_a_key_on_another_curve_is_refused(files: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    pki.write_key(files / "ca.key", key)
    pki.write_certificate(files / "ca.pem", pki.make_root(key))

    assert "P-256" in refused(files, "ca.key")


def test_a_key_of_another_kind_is_refused(files: Path) -> None:
    pki.write_key(files / "ca.key", ed25519.Ed25519PrivateKey.generate())

    assert "RSA or EC" in refused(files, "ca.key")


def test_a_short_secret_is_refused(files: Path) -> None:
    (files / "secret").write_bytes(b"s" * 31)

    assert "shorter than 32" in refused(files, "secret")


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_certificate_that_another_key_signed_is_never_handed_out(
    kind: str,
    rsa_key: rsa.RSAPrivateKey,
    ec_key: ec.EllipticCurvePrivateKey,
    device: Identity,
) -> None:
    """A fault in the signature gives an RSA key away."""
    good = pki.local_ca(rsa_key if kind == "rsa" else ec_key)
    other = device.key if kind == "rsa" else ec.derive_private_key(11, ec.SECP256R1())
    faulty = replace(good, key=other)
    made = template(good.certificate)

    with pytest.raises(SigningError):
        faulty.sign(faulty.draft(made, "attempt"))
