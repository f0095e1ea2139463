from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from cli.enroll.identity import (
    Identity,
    RequestError,
    general_name,
    key_pem,
    make_csr,
    make_identity,
    make_key,
    read_key,
)
from shared.x509.csr import read_csr, verify_self_signature
from shared.x509.names import GeneralName
from tests.support import pki
from tests.support.world import NOW


@pytest.fixture
def identity(rsa_key: rsa.RSAPrivateKey) -> Identity:
    return make_identity(rsa_key, "device-1", NOW)


def test_an_identity_is_a_certificate_of_a_day_over_its_key(identity: Identity) -> None:
    made = x509.load_der_x509_certificate(identity.signer.certificate.der)

    made.verify_directly_issued_by(made)
    assert made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "device-1"
    assert made.not_valid_before_utc.timestamp() < NOW
    assert made.not_valid_after_utc.timestamp() == NOW + 86400


@pytest.mark.parametrize("common_name", ["", "x" * 65])
def test_a_common_name_that_no_certificate_can_hold_is_refused(
    rsa_key: rsa.RSAPrivateKey, common_name: str
) -> None:
    with pytest.raises(RequestError, match="--cn: "):
        make_identity(rsa_key, common_name, NOW)


@pytest.mark.parametrize(
    "kind", ["", "rsa", "rsa:", "rsa:1024", "rsa:2047", "ec:p224", "RSA:2048", "rsa:2048:1"]
)
def test_keys_of_other_kinds_are_refused_and_those_that_go_are_named(kind: str) -> None:
    with pytest.raises(RequestError, match=r"choose one of rsa:2048, .*ec:p521"):
        make_key(kind)


def test_a_key_is_written_and_read_back(rsa_key: rsa.RSAPrivateKey) -> None:
    assert read_key(key_pem(rsa_key), "key.pem").private_numbers() == rsa_key.private_numbers()


@pytest.mark.parametrize(
    "pem", [b"", b"junk", pki.private_pem(Ed25519PrivateKey.from_private_bytes(bytes(32)))]
)
def test_a_kept_file_without_a_usable_key_is_refused(pem: bytes) -> None:
    with pytest.raises(RequestError, match=r"^key\.pem holds n"):
        read_key(pem, "key.pem")


def test_a_csr_holds_challenge_and_names_and_proves_possession(identity: Identity) -> None:
    made = read_csr(make_csr(identity, "s3cret-ü", ["a.example", "ip:192.0.2.1", "upn:a@b"]))

    verify_self_signature(made)
    assert made.challenge == "s3cret-ü"
    assert made.sans == (
        GeneralName("dns", "a.example"),
        GeneralName("ip", "192.0.2.1"),
        GeneralName("upn", "a@b"),
    )
    assert made.spki == identity.spki


def test_a_csr_without_challenge_and_names_holds_neither(identity: Identity) -> None:
    made = read_csr(make_csr(identity, None, []))

    assert (made.challenge, made.sans) == (None, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example", x509.DNSName("a.example")),
        ("dns:a.example", x509.DNSName("a.example")),
        ("DNS:*.a.example", x509.DNSName("*.a.example")),
        ("email:a@b.example", x509.RFC822Name("a@b.example")),
        ("uri:urn:device:1", x509.UniformResourceIdentifier("urn:device:1")),
    ],
)
def test_names_are_written_with_their_kind(text: str, expected: Any) -> None:
    assert general_name(text) == expected


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::1"])
def test_addresses_of_both_families_are_taken(address: str) -> None:
    found = general_name(f"ip:{address}")

    assert isinstance(found, x509.IPAddress)
    assert str(found.value) == address


@pytest.mark.parametrize(
    "text", ["ip:", "ip:192.0.2.300", "ip:192.0.2.0/24", "dns:ü.example", "ü.example", "email:ü@b"]
)
def test_values_that_no_certificate_can_hold_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match=f"--san {text}: "):
        general_name(text)


@pytest.mark.parametrize("text", ["rfc822:a@b", "sid:S-1-5", "https://a.example", ":a"])
def test_unknown_kinds_are_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(RequestError, match="must be dns:, email:, ip:, uri: or upn:"):
        general_name(text)


@pytest.mark.parametrize("text", ["", "dns:", "email:", "uri:", "upn:"])
def test_a_name_without_a_value_is_refused(text: str) -> None:
    """It would be an empty entry in the certificate."""
    with pytest.raises(RequestError):
        general_name(text)
