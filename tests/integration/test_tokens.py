"""RA and CA keys in a PKCS#11 token (SoftHSM)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cli.toml import set_keys
from cli.up.firststart import first_start
from cli.up.layout import Layout, write_private
from shared.runtime.process import now
from shared.scep.certrep import PkiStatus
from shared.scep.errors import FailInfo
from tests.support import messages as m
from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    enroll,
    recipient_info,
    sealed,
)
from tests.support.softhsm import PIN, Token, make_token
from tests.support.system import running, scepstream


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    return make_token(tmp_path_factory.mktemp("hsm"))


def keys_in_token(layout: Layout, token: Token, kind: str) -> None:
    """A data directory whose CA and RA keys are in the token and in no file."""
    first_start(layout, kind, None, 4222, now())
    pem = layout.root / "key.pem"
    labels = {}
    for number, (use, path) in enumerate(
        (
            ("ca", layout.root / "ca" / "ca.key"),
            ("signing", layout.ra("signing")),
            ("encryption", layout.ra("encryption")),
        )
    ):
        text = path.read_text()
        pem.write_text(text[text.index("-----BEGIN PRIVATE KEY") :])
        labels[use] = f"{use}-{kind.replace(':', '-')}"
        token.take(labels[use], 16 * kind.startswith("ec") + number + 1, pem)
        path.write_text(text[: text.index("-----BEGIN PRIVATE KEY")])
    pem.unlink()
    text = layout.config.read_text()
    text = set_keys(text, "issuers.local", {"ca_key_path": token.uri(labels["ca"])})
    for profile in ("demo", "legacy", "corp"):
        uris = [token.uri(labels[use]) for use in ("signing", "encryption")]
        text = set_keys(text, f"profiles.{profile}", {"ra_key_path": uris})
    write_private(layout.config, text.encode())


@pytest.fixture(scope="module", params=["rsa:2048", "ec:p256"])
def served(
    request: pytest.FixtureRequest, token: Token, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    layout = Layout(tmp_path_factory.mktemp("token") / "data")
    keys_in_token(layout, token, request.param)
    with running(layout.root, env=token.env) as system:
        yield Endpoint.of(system)


def test_a_device_enrolls_with_every_key_in_the_token(served: Endpoint) -> None:
    enroll(served, Device.new())


def oaep(served: Endpoint, device: Device, transport: str) -> Any:
    """The CertRep for a request whose content key came by OAEP."""
    algorithm, padding = m.TRANSPORTS[transport]
    key = served.encryption.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    encrypted = key.encrypt(m.cipher_key("aes256"), padding)
    usual = m.TRANSPORTS["pkcs1v15"][0]
    info = recipient_info(served, encrypted_key=encrypted).replace(usual, algorithm)
    body = m.tlv(m.SEQ, info[4:] if info[1] == 0x82 else info[3:])
    content = sealed(served, device.csr(served.challenge), recipient=body)
    return ask(served, device.request(content))


def test_oaep_is_opened_as_far_as_the_token_can(served: Endpoint) -> None:
    """SoftHSM knows OAEP with SHA-1 alone."""
    assert oaep(served, Device.new(), "oaep").status is PkiStatus.SUCCESS
    refused = oaep(served, Device.new(), "oaep-sha256")
    assert (refused.status, refused.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_ALG)


def test_bad_padding_is_answered_as_with_a_key_in_a_file(served: Endpoint) -> None:
    device = Device.new()
    info = recipient_info(served, encrypted_key=b"\x01" * 256)
    content = sealed(served, device.csr(served.challenge), recipient=info)
    reply = ask(served, device.request(content))
    assert (reply.fail_info, reply.fail_info_text) == (FailInfo.BAD_MESSAGE_CHECK, "")


@pytest.mark.parametrize(
    ("label", "pin", "said"),
    [("nobody", "pin", "NoSuchKey"), ("ca-x", "wrong", "PinIncorrect"), ("ca", "open", "0644")],
)
def test_a_key_that_cannot_be_had_is_one_sentence(
    token: Token, tmp_path: Path, label: str, pin: str, said: str
) -> None:
    layout = Layout(tmp_path / "data")
    first_start(layout, "rsa:2048", None, 4222, now())
    keys = {"ca_key_path": token.uri(label, pin)}
    text = set_keys(layout.config.read_text(), "issuers.local", keys)
    write_private(layout.config, text.encode())
    done = scepstream(
        "config", "check", "--config", str(layout.config), env={**os.environ, **token.env}
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert PIN not in done.stdout + done.stderr
