import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.gateway.ra import RaKeys, RaPair, assemble, read_pairs
from shared.config.load import SettingsError
from tests.support import pki
from tests.support.messages import Identity
from tests.support.world import NOW

DAY = dt.timedelta(days=1)
TODAY = dt.datetime.fromtimestamp(NOW, dt.UTC)
SIGN = ("digital_signature",)
DECRYPT = ("key_encipherment",)
BOTH = SIGN + DECRYPT


def certificate(
    key: rsa.RSAPrivateKey, usage: tuple[str, ...] | None, **dates: Any
) -> x509.Certificate:
    return pki.make_certificate(key.public_key(), key, subject="RA", usage=usage, **dates)


def pair(key: rsa.RSAPrivateKey, *usage: str, begun: int = 10, left: int = 100) -> RaPair:
    """A pair that began so many days ago and has so many left."""
    made = certificate(key, usage, start=TODAY - begun * DAY, end=TODAY + left * DAY)
    return RaPair(made, key, SIGN[0] in usage, DECRYPT[0] in usage)


def chosen(*pairs: RaPair) -> RaKeys:
    return assemble(list(pairs), NOW)


def decrypting(keys: RaKeys) -> list[bytes]:
    return [key.certificate.der for key in keys.decryption]


def test_one_combined_pair_does_everything(rsa_key: rsa.RSAPrivateKey) -> None:
    only = pair(rsa_key, *BOTH)
    keys = chosen(only)

    assert keys.signer.certificate.der == only.der
    assert decrypting(keys) == [only.der]
    assert keys.certificates == (only.der,)
    assert keys.not_after == TODAY + 100 * DAY


def test_a_split_pair_is_shown_signing_certificate_first(rsa_key: rsa.RSAPrivateKey) -> None:
    signs, decrypts = pair(rsa_key, *SIGN, left=50), pair(rsa_key, *DECRYPT, left=70)
    keys = chosen(decrypts, signs)

    assert keys.signer.certificate.der == signs.der
    assert decrypting(keys) == [decrypts.der]
    assert keys.certificates == (signs.der, decrypts.der)
    assert keys.not_after == TODAY + 50 * DAY


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_newest_is_current_and_the_previous_still_decrypts(
    rsa_key: rsa.RSAPrivateKey,
    newest_first: bool,  # noqa: FBT001 - a case
) -> None:
    old, new = pair(rsa_key, *BOTH, begun=300), pair(rsa_key, *BOTH, begun=3)
    keys = chosen(new, old) if newest_first else chosen(old, new)

    assert keys.signer.certificate.der == new.der
    assert decrypting(keys) == [new.der, old.der]
    assert keys.certificates == (new.der,)


def test_an_expired_pair_neither_signs_nor_decrypts(rsa_key: rsa.RSAPrivateKey) -> None:
    expired, valid = pair(rsa_key, *BOTH, begun=3, left=0), pair(rsa_key, *BOTH, begun=300)
    keys = chosen(expired, valid)

    assert keys.signer.certificate.der == valid.der
    assert decrypting(keys) == [valid.der]


def test_a_pair_whose_time_has_not_come_is_not_current(rsa_key: rsa.RSAPrivateKey) -> None:
    """Devices refuse replies and requests under a certificate that is not valid yet."""
    coming, valid = pair(rsa_key, *BOTH, begun=-5), pair(rsa_key, *BOTH, begun=300)
    keys = chosen(coming, valid)

    assert keys.signer.certificate.der == valid.der
    assert keys.certificates == (valid.der,)


def test_a_combined_pair_beside_a_newer_signing_one_only_decrypts(
    rsa_key: rsa.RSAPrivateKey,
) -> None:
    combined, signs = pair(rsa_key, *BOTH, begun=300), pair(rsa_key, *SIGN, begun=3)

    assert chosen(combined, signs).certificates == (signs.der, combined.der)


@pytest.mark.parametrize(
    ("usage", "missing"), [(SIGN, "keyEncipherment"), (DECRYPT, "digitalSignature")]
)
def test_without_a_valid_certificate_for_each_use_there_is_no_start(
    rsa_key: rsa.RSAPrivateKey, usage: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(SettingsError, match=missing):
        chosen(pair(rsa_key, *usage), pair(rsa_key, *BOTH, left=0))


# Files


def written(directory: Path, made: x509.Certificate, key: Any, mode: int = 0o600) -> RaPair:
    cert_path = pki.write_certificate(directory / "ra.pem", made)
    return read_pairs(cert_path, pki.write_key(directory / "ra.key", key, mode))[0]


@pytest.mark.parametrize(
    ("usage", "signs", "decrypts"),
    [(SIGN, True, False), (DECRYPT, False, True), (BOTH, True, True), (None, True, True)],
)
def test_a_pair_does_what_its_key_usage_says(
    tmp_path: Path,
    ra: Identity,
    usage: tuple[str, ...] | None,
    signs: bool,  # noqa: FBT001 - a case
    decrypts: bool,  # noqa: FBT001 - a case
) -> None:
    found = written(tmp_path, certificate(ra.key, usage), ra.key)

    assert (found.signs, found.decrypts) == (signs, decrypts)


def refused(directory: Path, made: x509.Certificate, key: Any, mode: int = 0o600) -> str:
    with pytest.raises(SettingsError) as error:
        written(directory, made, key, mode)
    return str(error.value)


def test_a_certificate_for_neither_use_is_refused(tmp_path: Path, ra: Identity) -> None:
    complaint = refused(tmp_path, certificate(ra.key, ("key_cert_sign",)), ra.key)

    assert complaint == f"{tmp_path}/ra.pem: needs digitalSignature or keyEncipherment"


def test_a_key_that_is_not_the_certificates_is_refused(
    tmp_path: Path, ra: Identity, device: Identity
) -> None:
    complaint = refused(tmp_path, certificate(ra.key, BOTH), device.key)

    assert complaint == f"{tmp_path}/ra.key: is not the key of {tmp_path}/ra.pem"


def test_an_ec_key_is_refused_for_it_cannot_decrypt(
    tmp_path: Path, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    made = pki.make_certificate(ec_key.public_key(), ec_key, usage=BOTH)

    assert refused(tmp_path, made, ec_key) == f"{tmp_path}/ra.key: must be an RSA key"


def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)

    assert "has 1024 bits" in refused(tmp_path, certificate(key, BOTH), key)


@pytest.mark.parametrize("mode", [0o604, 0o660, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, ra: Identity, mode: int) -> None:
    complaint = refused(tmp_path, certificate(ra.key, BOTH), ra.key, mode)

    assert complaint == f"{tmp_path}/ra.key: mode is {mode:04o}, must be 0600 or stricter"


@pytest.mark.parametrize("missing", ["ra.pem", "ra.key"])
def test_a_missing_file_is_named(tmp_path: Path, ra: Identity, missing: str) -> None:
    written(tmp_path, certificate(ra.key, BOTH), ra.key)
    (tmp_path / missing).unlink()

    with pytest.raises(SettingsError, match=f"{missing}: No such file"):
        read_pairs(tmp_path / "ra.pem", tmp_path / "ra.key")


@pytest.mark.parametrize("broken", ["ra.pem", "ra.key"])
def test_a_file_of_something_else_is_named_and_not_quoted(
    tmp_path: Path, ra: Identity, broken: str
) -> None:
    written(tmp_path, certificate(ra.key, BOTH), ra.key)
    (tmp_path / broken).write_bytes(b"-----BEGIN MARKER-----\nc2VjcmV0\n-----END MARKER-----\n")

    with pytest.raises(SettingsError) as error:
        read_pairs(tmp_path / "ra.pem", tmp_path / "ra.key")
    assert broken in str(error.value)
    assert "MARKER" not in str(error.value)
    assert "c2Vj" not in str(error.value)
