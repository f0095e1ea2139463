"""The stand-in connector's certificate and tokens, looked at without the product's own code."""

import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from cli.connector.signing import (
    CERTIFICATE,
    KEY,
    KINDS,
    ChallengeClaims,
    Connector,
    connector_files,
)
from services.validator.challenges.anchors import AnchorFiles
from services.validator.challenges.token import TokenRules, check_token
from shared.config.challenge_format import looks_signed
from shared.config.load import SettingsError
from shared.x509.csr import read_csr
from tests.support import pki
from tests.support.messages import Identity, device_csr
from tests.support.world import NOW
from tests.unit.cli.connector.tokens import segment, verified

NAME: Final = "Connector 1"
NONCE: Final = "5d41402abc4b2a76b9719d911017c592"
OTHER_KEY: Final = ec.derive_private_key(111, ec.SECP256R1())
TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.fixture(scope="session", params=KINDS)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A connector of each kind."""
    found = tmp_path_factory.mktemp("connector")
    certificate, key = connector_files(request.param, NAME, NOW)
    (found / CERTIFICATE).write_bytes(certificate)
    (found / KEY).write_bytes(key)
    (found / KEY).chmod(0o600)
    return found


@pytest.fixture(scope="session")
def connector(directory: Path) -> Connector:
    return Connector.read(directory)


@pytest.fixture
def certificate(directory: Path) -> bytes:
    return (directory / CERTIFICATE).read_bytes()


def claims(**changes: Any) -> ChallengeClaims:
    return ChallengeClaims(**({"subject": "device-guid-1", "device_name": "device"} | changes))


# The certificate


def test_the_certificate_is_self_signed_and_of_its_key(directory: Path, certificate: bytes) -> None:
    found = x509.load_pem_x509_certificate(certificate)
    key = load_pem_private_key((directory / KEY).read_bytes(), None)

    found.verify_directly_issued_by(found)
    assert pki.spki(found.public_key()) == pki.spki(key.public_key())
    assert [a.value for a in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [NAME]
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_the_certificate_is_good_now_and_for_a_year(certificate: bytes) -> None:
    found = x509.load_pem_x509_certificate(certificate)

    assert found.not_valid_before_utc.timestamp() < NOW
    assert found.not_valid_after_utc.timestamp() == NOW + 365 * 86400


def test_the_certificate_is_an_anchor_that_a_profile_takes(directory: Path) -> None:
    (anchor,) = AnchorFiles(directory / CERTIFICATE).read(NOW).common

    assert anchor.valid(NOW)
    assert anchor.subject == f"CN={NAME}"


def test_two_connectors_share_nothing() -> None:
    one, other = (connector_files("ec:p256", NAME, NOW) for _ in range(2))

    assert not set(one) & set(other)


@pytest.mark.parametrize(
    ("kind", "size"), [("rsa:2048", 2048), ("rsa:3072", 3072), ("ec:p256", 256)]
)
def test_a_key_is_of_the_kind_that_was_asked_for(kind: str, size: int) -> None:
    key = load_pem_private_key(connector_files(kind, NAME, NOW)[1], None)

    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    assert key.key_size == size


# The signature


def test_a_token_is_signed_by_the_certificates_key(
    connector: Connector, certificate: bytes
) -> None:
    found = verified(connector.mint(claims(), NONCE, NOW), certificate)

    assert found.header["alg"] == (
        "RS256" if isinstance(connector.key, rsa.RSAPrivateKey) else "ES256"
    )
    assert "crit" not in found.header


def test_another_certificate_does_not_verify_it(connector: Connector) -> None:
    kind = "ec:p256" if isinstance(connector.key, ec.EllipticCurvePrivateKey) else "rsa:2048"
    other = connector_files(kind, NAME, NOW)[0]

    with pytest.raises(InvalidSignature):
        verified(connector.mint(claims(), NONCE, NOW), other)


def test_what_was_changed_after_signing_does_not_verify(
    connector: Connector, certificate: bytes
) -> None:
    header, payload, signature = connector.mint(claims(), NONCE, NOW).split(".")
    other = connector.mint(claims(subject="another"), NONCE, NOW).split(".")[1]
    fields = json.dumps(json.loads(segment(header)) | {"kid": "1"}).encode()
    longer = base64.urlsafe_b64encode(fields).rstrip(b"=").decode()

    for changed in (f"{header}.{other}", f"{longer}.{payload}"):
        with pytest.raises(InvalidSignature):
            verified(f"{changed}.{signature}", certificate)


def test_an_ecdsa_signature_is_of_64_bytes_however_short_its_numbers() -> None:
    """R and s are padded (RFC 7518 s3.4): of 1000 pairs some begin with zeros."""
    certificate, key = connector_files("ec:p256", NAME, NOW)
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    connector = Connector(private, NAME)
    found = [verified(connector.mint(claims(), NONCE, NOW), certificate) for _ in range(1000)]

    assert any(0 in (each.signature[0], each.signature[32]) for each in found)


def test_a_token_is_three_segments_without_padding(connector: Connector) -> None:
    token = connector.mint(claims(), NONCE, NOW)

    assert token.count(".") == 2
    assert token.isascii()
    assert "=" not in token
    assert looks_signed(token)


# The claims


def test_the_claims_are_those_of_version_1(connector: Connector, certificate: bytes) -> None:
    full = claims(
        san_dns=("a.example", "b.example"),
        san_rfc822=("a@b.example",),
        san_upn=("user@corp.example",),
        audience="https://scep.example/corp",
        ttl=90,
    )

    assert verified(connector.mint(full, NONCE, NOW), certificate).claims == {
        "version": "v1",
        "iss": NAME,
        "sub": "device-guid-1",
        "iat": NOW,
        "exp": NOW + 90,
        "nonce": NONCE,
        "aud": "https://scep.example/corp",
        "device_name": "device",
        "san_dns": ["a.example", "b.example"],
        "san_rfc822": ["a@b.example"],
        "san_upn": ["user@corp.example"],
    }


def test_what_a_token_is_not_to_speak_of_is_no_claim(
    connector: Connector, certificate: bytes
) -> None:
    found = verified(
        connector.mint(ChallengeClaims("device-guid-1"), NONCE, NOW), certificate
    ).claims

    assert set(found) == {"version", "iss", "sub", "iat", "exp", "nonce"}
    assert found["exp"] - found["iat"] == 3600


def test_an_empty_list_of_names_is_a_claim_that_there_are_none(
    connector: Connector, certificate: bytes
) -> None:
    token = connector.mint(claims(san_dns=()), NONCE, NOW)

    assert verified(token, certificate).claims["san_dns"] == []


@given(TEXT, TEXT, st.one_of(st.none(), TEXT), st.lists(TEXT, max_size=3))
def test_any_text_stands_in_the_claims_as_it_was_said(
    subject: str, device: str, audience: str | None, names: list[str]
) -> None:
    minted = Connector(OTHER_KEY, NAME).mint(
        ChallengeClaims(subject, device, tuple(names), audience=audience), NONCE, NOW
    )
    claims = json.loads(segment(minted.split(".")[1]))

    assert (claims["sub"], claims["device_name"]) == (subject, device)
    assert (claims["san_dns"], claims.get("aud")) == (names, audience)


# A claims for a device


def test_names_go_to_the_claims_of_their_kinds() -> None:
    sans = ["dns:a.example", "email:a@b", "upn:u@c", "dns:b.example"]

    assert ChallengeClaims.for_device("guid", "device", sans, "aud", 60) == ChallengeClaims(
        "guid", "device", ("a.example", "b.example"), ("a@b",), ("u@c",), "aud", 60
    )


def test_without_names_the_token_does_not_speak_of_them() -> None:
    found = ChallengeClaims.for_device("guid", "device", [], None)

    assert (found.san_dns, found.san_rfc822, found.san_upn, found.audience) == (None,) * 4


def test_kinds_without_a_claim_are_left_out() -> None:
    assert ChallengeClaims.for_device(
        "guid", "device", ["ip:192.0.2.1", "uri:urn:x"], None
    ) == ChallengeClaims("guid", "device")


@pytest.mark.parametrize("san", ["a.example", "DNS:a.example", "Dns:a.example"])
def test_a_dns_name_is_one_in_every_way_that_enroll_writes_it(san: str) -> None:
    """A bare name is a DNS name, and kinds are known in any case: so goes the CSR."""
    assert ChallengeClaims.for_device("guid", "device", [san], None).san_dns == ("a.example",)


def test_a_colon_within_a_name_is_the_names() -> None:
    assert ChallengeClaims.for_device("guid", "device", ["upn:a:b@c"], None).san_upn == ("a:b@c",)


# What a validator says


@pytest.mark.parametrize(
    ("changes", "late", "refusal"),
    [
        ({}, 0, None),
        ({"san_dns": ("device.example",), "audience": "here"}, 0, None),
        ({"ttl": 30}, 89, None),
        ({"ttl": 30}, 90, "expired"),
        ({"device_name": "other"}, 0, "claim_mismatch"),
        ({"san_dns": ("other.example",)}, 0, "claim_mismatch"),
        ({"audience": "elsewhere"}, 0, "wrong_audience"),
    ],
)
def test_a_validator_takes_the_token_for_what_it_says(
    directory: Path,
    connector: Connector,
    device: Identity,
    changes: dict[str, Any],
    late: int,
    refusal: str | None,
) -> None:
    csr = read_csr(device_csr(device))
    named = {"san_dns": tuple(s.value for s in csr.sans if s.kind == "dns"), "audience": "here"}
    token = connector.mint(claims(**(named | changes)), NONCE, NOW)
    pool = AnchorFiles(directory / CERTIFICATE).read(NOW)
    rules = TokenRules(audience="here", validity=3600, tolerance=60)
    judged = check_token(token, pool, rules, csr, NOW + late)

    found = judged.verified.refusal
    assert (found.reason if found else None) == refusal


# Reading it back


@pytest.fixture
def copied(directory: Path, tmp_path: Path) -> Path:
    """A connector that a test may break."""
    for name in (CERTIFICATE, KEY):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    return tmp_path


def test_a_connector_signs_under_its_certificates_name(copied: Path) -> None:
    assert Connector.read(copied).name == NAME


@pytest.mark.parametrize("name", [CERTIFICATE, KEY])
@pytest.mark.parametrize("content", [None, b"", b"garbage", bytes(range(256))])
def test_a_connector_that_is_none_is_an_expected_error(
    copied: Path, name: str, content: bytes | None
) -> None:
    (copied / name).unlink()
    if content is not None:
        (copied / name).write_bytes(content)
        (copied / name).chmod(0o600)

    with pytest.raises((OSError, ValueError, SettingsError)):
        Connector.read(copied)


def test_a_certificate_without_a_common_name_is_an_expected_error(copied: Path) -> None:
    nameless = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), OTHER_KEY.public_key(), 1, pki.START, pki.END
    ).sign(OTHER_KEY, hashes.SHA256())
    pki.write_certificate(copied / CERTIFICATE, nameless)

    with pytest.raises(ValueError):
        Connector.read(copied)


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o644])
def test_a_key_that_others_may_read_is_refused(copied: Path, mode: int) -> None:
    (copied / KEY).chmod(mode)

    with pytest.raises(SettingsError, match=f"{KEY}: mode is {mode:04o}"):
        Connector.read(copied)


def test_a_key_that_is_not_the_certificates_is_refused(copied: Path) -> None:
    """No validator would take a token that it signs."""
    pki.write_key(copied / KEY, OTHER_KEY)

    with pytest.raises((ValueError, SettingsError)):
        Connector.read(copied)
