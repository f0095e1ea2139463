"""`scepstream connector`: init makes a connector once, token prints a challenge."""

import json
import re
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from tests.unit.cli.commands import command, sentence
from tests.unit.cli.connector.tokens import segment, verified

OTHER_KEY: Final = ec.derive_private_key(121, ec.SECP256R1())


def init(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("connector", "init", "--dir", str(directory), "--key", "ec:p256", *arguments)


def token(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("connector", "token", "--dir", str(directory), *arguments)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A connector made by the command."""
    found = tmp_path / "made" / "connector"
    assert init(found).returncode == 0
    return found


def claims(directory: Path, *arguments: str) -> dict[str, Any]:
    """What a printed token says, its signature verified."""
    done = token(directory, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout, re.ASCII)
    return verified(done.stdout.strip(), (directory / "connector.pem").read_bytes()).claims


# init


def test_init_makes_a_certificate_and_its_key_and_names_the_anchor(tmp_path: Path) -> None:
    done = init(tmp_path / "c")

    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / "c" / "connector.pem") in done.stdout
    assert {p.name for p in (tmp_path / "c").iterdir()} == {"connector.pem", "connector.key"}


def test_the_key_is_its_owners_alone(directory: Path) -> None:
    assert stat.S_IMODE((directory / "connector.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (["--key", "rsa:2048"], rsa.RSAPublicKey),
        (["--key", "ec:p256"], ec.EllipticCurvePublicKey),
        ([], rsa.RSAPublicKey),
    ],
)
def test_the_key_is_of_the_kind_asked_for(tmp_path: Path, kind: list[str], expected: type) -> None:
    done = command("connector", "init", "--dir", str(tmp_path), *kind)
    found = x509.load_pem_x509_certificate((tmp_path / "connector.pem").read_bytes())

    assert done.returncode == 0
    assert isinstance(found.public_key(), expected)
    assert token(tmp_path, "--cn", "device").returncode == 0


@pytest.mark.parametrize("kind", ["", "rsa:1024", "rsa", "ec:p384", "RSA:2048", "ed25519"])
def test_other_kinds_are_refused_with_those_there_are(tmp_path: Path, kind: str) -> None:
    said = sentence(command("connector", "init", "--dir", str(tmp_path / "c"), "--key", kind))

    assert "rsa:2048, rsa:3072, ec:p256" in said
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("file", ["connector.pem", "connector.key"])
def test_init_overwrites_nothing(directory: Path, file: str) -> None:
    other = {"connector.pem", "connector.key"} - {file}
    (directory / other.pop()).unlink()
    before = (directory / file).read_bytes()

    assert sentence(init(directory)) == f"{directory / file} already exists"
    assert [p.name for p in directory.iterdir()] == [file]
    assert (directory / file).read_bytes() == before


def test_the_name_is_what_tokens_say_they_are_from(tmp_path: Path) -> None:
    init(tmp_path, "--name", "Oslo \u00e5")

    assert claims(tmp_path, "--cn", "device")["iss"] == "Oslo \u00e5"


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_no_certificate_can_hold_is_one_sentence_about_the_name(
    tmp_path: Path, name: str
) -> None:
    assert "name" in sentence(init(tmp_path, "--name", name))
    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert str(tmp_path / "file") in sentence(init(tmp_path / "file"))
    assert str(tmp_path / "file") in sentence(init(tmp_path / "file" / "below"))


# token


def test_a_token_is_for_its_device_for_an_hour_from_now(directory: Path) -> None:
    before = int(time.time())
    found = claims(directory, "--cn", "laptop-1")

    assert (found["sub"], found["device_name"]) == ("laptop-1", "laptop-1")
    assert found["iss"] == "scepstream connector"
    assert before <= found["iat"] <= time.time()
    assert found["exp"] - found["iat"] == 3600
    assert not {"aud", "san_dns", "san_rfc822", "san_upn"} & set(found)


def test_each_option_is_a_claim(directory: Path) -> None:
    found = claims(
        directory, "--cn", "laptop-1", "--device", "guid-1", "--audience", "https://scep/corp",
        "--san", "dns:a.example", "--san", "dns:b.example", "--san", "email:a@b",
        "--san", "upn:u@c", "--ttl", "90s",
    )  # fmt: skip

    assert (found["sub"], found["device_name"], found["aud"]) == (
        "guid-1",
        "laptop-1",
        "https://scep/corp",
    )
    assert found["san_dns"] == ["a.example", "b.example"]
    assert (found["san_rfc822"], found["san_upn"]) == (["a@b"], ["u@c"])
    assert found["exp"] - found["iat"] == 90


def test_no_two_tokens_have_the_same_nonce(directory: Path) -> None:
    """It is what makes a token good for one enrollment."""
    found = {claims(directory, "--cn", "device")["nonce"] for _ in range(20)}

    assert len(found) == 20
    assert all(len(nonce) >= 32 for nonce in found)


@pytest.mark.parametrize("ttl", ["0s", "999ms", "60", "-1s", "soon", ""])
def test_a_ttl_that_is_none_is_a_wrong_option(directory: Path, ttl: str) -> None:
    done = token(directory, "--cn", "device", "--ttl", ttl)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--ttl" in done.stderr


def test_a_token_needs_a_common_name(directory: Path) -> None:
    done = token(directory)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--cn" in done.stderr


@pytest.mark.parametrize("san", ["dsn:a.example", ":a", "dns:"])
def test_a_misspelt_name_is_not_dropped_without_a_word(directory: Path, san: str) -> None:
    """`enroll` and `challenge new` refuse it; else the device is, and nobody knows why."""
    assert "--san" in sentence(token(directory, "--cn", "device", "--san", san))


@pytest.mark.parametrize("file", ["connector.pem", "connector.key"])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"\xff\xfe"])
def test_a_connector_that_is_none_is_one_sentence(
    directory: Path, file: str, content: bytes | None
) -> None:
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_bytes(content)
        (directory / file).chmod(0o600)
    done = token(directory, "--cn", "device")

    assert done.stdout == ""
    assert "connector" in sentence(done)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in sentence(token(tmp_path / "absent", "--cn", "device"))


@pytest.mark.parametrize("mode", [0o660, 0o604])
def test_a_key_that_others_may_read_is_one_sentence(directory: Path, mode: int) -> None:
    (directory / "connector.key").chmod(mode)

    assert f"mode is {mode:04o}" in sentence(token(directory, "--cn", "device"))


def test_a_key_with_a_password_is_one_sentence(directory: Path) -> None:
    sealed = OTHER_KEY.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")
    )
    (directory / "connector.key").write_bytes(sealed)

    assert "connector.key: the key is encrypted" in sentence(token(directory, "--cn", "device"))


def test_the_default_directory_is_connector_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("connector", "init", "--key", "ec:p256").returncode == 0
    done = command("connector", "token", "--cn", "device")

    assert json.loads(segment(done.stdout.split(".")[1]))["sub"] == "device"
