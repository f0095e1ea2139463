"""What an RA pair must be before a gateway opens a port: else profile and file are named."""

import datetime as dt
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.gateway import settings as gateway
from shared.config.load import SettingsError, load
from tests.support import pki
from tests.support.world import NOW
from tests.unit.shared import configurations
from tests.unit.shared.changed import PROFILE, armoured, change, of_unknown_kind
from tests.unit.shared.configurations import MARKER

P256_KEY: Final = ec.derive_private_key(91, ec.SECP256R1())
PAST: Final = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
FUTURE: Final = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
BOTH: Final = ("digital_signature", "key_encipherment")


@pytest.fixture
def config(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> Path:
    return configurations.write_all(tmp_path, rsa_key, ec_key)


@pytest.fixture(scope="session")
def short_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def write_ra(
    config: Path, public: Any, signing: ec.EllipticCurvePrivateKey, *usage: str, **dates: Any
) -> None:
    """The RA's certificate anew."""
    made = pki.make_certificate(public, signing, subject="RA", usage=usage, **dates)
    pki.write_certificate(config.parent / "ra.pem", made)


def refused(config: Path, file: str) -> str:
    """What the gateway says: the profile and the file stand in it, and no secret."""
    with pytest.raises(SettingsError) as error:
        gateway.read_settings(load(config, {}), NOW)
    found = str(error.value)
    assert f"profile {PROFILE}: " in found
    assert file in found
    assert MARKER not in found
    return found


@pytest.mark.parametrize("dates", [{"end": PAST}, {"start": FUTURE}])
def test_an_ra_certificate_out_of_its_time_is_named_with_its_profile(
    config: Path,
    rsa_key: rsa.RSAPrivateKey,
    ec_key: ec.EllipticCurvePrivateKey,
    dates: dict[str, Any],
) -> None:
    write_ra(config, rsa_key.public_key(), ec_key, *BOTH, **dates)

    refused(config, "ra.pem")


@pytest.mark.parametrize("usage", [("key_agreement",), ("key_cert_sign", "crl_sign")])
def test_an_ra_certificate_of_other_use_is_named_with_its_profile(
    config: Path,
    rsa_key: rsa.RSAPrivateKey,
    ec_key: ec.EllipticCurvePrivateKey,
    usage: tuple[str, ...],
) -> None:
    write_ra(config, rsa_key.public_key(), ec_key, *usage)

    assert "digitalSignature or keyEncipherment" in refused(config, "ra.pem")


@pytest.mark.parametrize("usage", [("digital_signature",), ("key_encipherment",)])
def test_an_ra_that_can_do_but_one_of_both_is_named_with_its_profile(
    config: Path,
    rsa_key: rsa.RSAPrivateKey,
    ec_key: ec.EllipticCurvePrivateKey,
    usage: tuple[str, ...],
) -> None:
    write_ra(config, rsa_key.public_key(), ec_key, *usage)

    refused(config, "ra.pem")


def test_a_short_ra_key_is_named_with_its_profile(
    config: Path, short_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    pki.write_key(config.parent / "ra.key", short_key)
    write_ra(config, short_key.public_key(), ec_key, *BOTH)

    assert "has 1024 bits, needs 2048" in refused(config, "ra.key")


def test_an_ec_key_can_never_decrypt(config: Path, ec_key: ec.EllipticCurvePrivateKey) -> None:
    pki.write_key(config.parent / "ra.key", P256_KEY)
    write_ra(config, P256_KEY.public_key(), ec_key, *BOTH)

    assert "must be an RSA key" in refused(config, "ra.key")


def test_the_key_of_another_certificate_is_named_with_its_profile(
    config: Path, short_key: rsa.RSAPrivateKey
) -> None:
    pki.write_key(config.parent / "ra.key", short_key)

    assert "ra.key: is not the key of" in refused(config, "ra.pem")


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o622])
def test_an_ra_key_that_others_may_use_is_named_with_its_profile(config: Path, mode: int) -> None:
    (config.parent / "ra.key").chmod(mode)

    assert f"mode is {mode:04o}" in refused(config, "ra.key")


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_an_ra_key_of_its_owner_alone_is_taken(config: Path, mode: int) -> None:
    (config.parent / "ra.key").chmod(mode)

    assert set(gateway.read_settings(load(config, {}), NOW).profiles) == {PROFILE}


def test_keys_of_an_unknown_kind_are_named_with_their_profile(config: Path) -> None:
    der = P256_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (config.parent / "ra.key").write_bytes(armoured("PRIVATE KEY", of_unknown_kind(der)))

    refused(config, "ra.key")


def test_certificates_of_an_unknown_kind_are_named_with_their_profile(config: Path) -> None:
    der = of_unknown_kind(pki.der(pki.make_root(P256_KEY)))
    (config.parent / "ra.pem").write_bytes(armoured("CERTIFICATE", der))

    refused(config, "ra.pem")


@pytest.mark.parametrize("missing", ["module-path", "pin-source"])
def test_what_is_said_of_a_key_in_a_token_never_holds_its_pin(config: Path, missing: str) -> None:
    parts = {"module-path": "/usr/lib/token.so", "pin-source": "/etc/pin", "pin-value": MARKER}
    query = "&".join(f"{name}={value}" for name, value in parts.items() if name != missing)
    change(config, ra_key_path=f"pkcs11:token=ra;object=ra?{query}")

    assert missing in refused(config, "token=ra;object=ra")
