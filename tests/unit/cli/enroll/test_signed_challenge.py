"""`enroll --connector`: the stand-in signs for the very names that the device asks for."""

from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cli.connector.signing import CERTIFICATE, KEY, connector_files
from cli.enroll.identity import (
    RequestError,
    general_name,
    make_csr,
    make_identity,
    make_renewal_csr,
    names_of,
    renewing,
)
from cli.enroll.signed_challenge import ChallengeSource
from services.validator.challenges.anchors import AnchorFiles
from services.validator.challenges.token import TokenRules, check_token
from shared.runtime.process import now
from shared.x509.csr import read_csr
from tests.support import pki
from tests.unit.cli.commands import command, sentence
from tests.unit.cli.connector.tokens import verified

URL: Final = "http://127.0.0.1:1/scep/corp"
AUDIENCE: Final = "https://scep.example/corp"
SANS: Final = ("dns:a.example", "email:a@b.example", "upn:user@corp.example")
OLD_KEY: Final = ec.derive_private_key(131, ec.SECP256R1())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A connector's directory."""
    certificate, key = connector_files("ec:p256", "connector", now())
    (tmp_path / CERTIFICATE).write_bytes(certificate)
    (tmp_path / KEY).write_bytes(key)
    (tmp_path / KEY).chmod(0o600)
    return tmp_path


def claims(directory: Path, token: str) -> dict[str, Any]:
    return verified(token, (directory / CERTIFICATE).read_bytes()).claims


def refusal(directory: Path, token: str, csr: bytes) -> str | None:
    """What a validator that trusts the connector says of the token with this CSR."""
    pool = AnchorFiles(directory / CERTIFICATE).read(now())
    rules = TokenRules(audience=AUDIENCE, validity=3600, tolerance=60)
    judged = check_token(token, pool, rules, read_csr(csr), int(now()))
    found = judged.verified.refusal
    return None if found is None else f"{found.reason}: {found.detail}"


def certificate_of(common_name: str, *sans: str) -> x509.Certificate:
    """A certificate that is renewed."""
    name = pki.name(common_name) if common_name else x509.Name([])
    builder = x509.CertificateBuilder(
        pki.name("Test CA"), name, OLD_KEY.public_key(), 1, pki.START, pki.END
    )
    if sans:
        names = x509.SubjectAlternativeName([general_name(san) for san in sans])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(OLD_KEY, hashes.SHA256())


# The token of a first enrollment


def test_a_token_is_for_the_device_and_its_names(directory: Path) -> None:
    found = claims(
        directory, ChallengeSource(directory, "guid-1", AUDIENCE).challenge("laptop", SANS)
    )

    assert (found["sub"], found["device_name"], found["aud"]) == ("guid-1", "laptop", AUDIENCE)
    assert found["san_dns"] == ["a.example"]
    assert found["san_rfc822"] == ["a@b.example"]
    assert found["san_upn"] == ["user@corp.example"]


def test_without_an_id_the_device_is_known_by_its_common_name(directory: Path) -> None:
    found = claims(directory, ChallengeSource(directory, None, None).challenge("laptop", ()))

    assert (found["sub"], found["device_name"]) == ("laptop", "laptop")
    assert "aud" not in found


def test_each_enrollment_has_a_token_of_its_own(directory: Path) -> None:
    source = ChallengeSource(directory, None, None)
    found = {claims(directory, source.challenge("laptop", ()))["nonce"] for _ in range(10)}

    assert len(found) == 10


@pytest.mark.parametrize(
    "sans",
    [(), SANS, ("dns:a.example", "dns:b.example"), ("DNS:a.example",), ("a.example",),
     ("Email:a@b.example", "UPN:u@c"), ("dns:A.Example", "dns:a.example"),
     ("uri:tag:microsoft.com,2022-09-14:sid:S-1-5-21-1",)],
    ids=" ".join,
)  # fmt: skip
def test_whatever_enroll_writes_into_the_csr_the_token_vouches_for(
    directory: Path, rsa_key: rsa.RSAPrivateKey, sans: tuple[str, ...]
) -> None:
    token = ChallengeSource(directory, None, AUDIENCE).challenge("laptop", sans)
    csr = make_csr(make_identity(rsa_key, "laptop", now()), token, list(sans))

    assert refusal(directory, token, csr) is None


@pytest.mark.parametrize("sans", [("ip:192.0.2.1",), ("uri:urn:device:1",)])
def test_names_without_a_claim_are_the_validators_to_refuse(
    directory: Path, rsa_key: rsa.RSAPrivateKey, sans: tuple[str, ...]
) -> None:
    token = ChallengeSource(directory, None, AUDIENCE).challenge("laptop", sans)
    csr = make_csr(make_identity(rsa_key, "laptop", now()), token, list(sans))

    assert "claim_mismatch" in str(refusal(directory, token, csr))


# The token of a renewal


@pytest.mark.parametrize("sans", [(), SANS, ("dns:a.example", "dns:b.example")], ids=" ".join)
def test_a_renewal_is_vouched_for_with_the_names_of_the_certificate(
    directory: Path, rsa_key: rsa.RSAPrivateKey, sans: tuple[str, ...]
) -> None:
    old = certificate_of("laptop", *sans)
    token = ChallengeSource(directory, "guid-1", AUDIENCE).renewal_challenge(old)
    csr = make_renewal_csr(renewing(rsa_key, OLD_KEY, old), token, names_of(old))

    assert refusal(directory, token, csr) is None
    assert claims(directory, token)["sub"] == "guid-1"


# Where there is no connector


@pytest.mark.parametrize("file", [CERTIFICATE, KEY])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\xff\xfe"])
def test_a_connector_that_is_none_is_named(
    directory: Path, file: str, content: bytes | None
) -> None:
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_bytes(content)
        (directory / file).chmod(0o600)

    with pytest.raises(RequestError, match=f"^--connector {directory}: not a connector: "):
        ChallengeSource(directory, None, None).challenge("laptop", ())


def test_a_connectors_key_that_others_may_read_is_named(directory: Path) -> None:
    (directory / KEY).chmod(0o644)

    with pytest.raises(RequestError, match=r"connector\.key: mode is 0644"):
        ChallengeSource(directory, None, None).challenge("laptop", ())


def enroll(tmp_path: Path, *arguments: str) -> str:
    """The one sentence of an enroll that does not even ask the server; it leaves nothing."""
    out = tmp_path / "out"
    done = command("enroll", URL, "--cn", "laptop", "--out", str(out), *arguments)
    assert not (out / "key.pem").exists()
    return sentence(done)


def test_enroll_says_in_a_sentence_that_there_is_no_connector(tmp_path: Path) -> None:
    absent = tmp_path / "absent"

    assert str(absent) in enroll(tmp_path, "--connector", str(absent))


def test_a_device_brings_one_challenge_not_two(directory: Path, tmp_path: Path) -> None:
    said = enroll(tmp_path, "--connector", str(directory), "--challenge", "s3cret")

    assert said.endswith("--challenge and --connector are mutually exclusive")
    assert "s3cret" not in said


def test_a_renewal_needs_the_certificate_that_is_renewed(directory: Path, tmp_path: Path) -> None:
    assert "cert.pem" in enroll(tmp_path, "--connector", str(directory), "--renew")
