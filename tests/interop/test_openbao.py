"""OpenBao behind scepstream: its real server, and clients that know nothing of either."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cli.up.layout import Layout, write_private
from shared.config.keys import spki
from shared.x509.key_ids import spki_sha256
from tests.interop.clients import ended, new_name, succeed
from tests.interop.test_scepclient import ScepClient
from tests.issuers.openbao import OpenBao, prepare
from tests.issuers.openbao import running as bao_running
from tests.support import pki
from tests.support.prepared import add_profiles, configure, prepared
from tests.support.system import System, running, wait_until
from tests.support.tools import need

PROFILE: Final = "bao"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with bao_running(tmp_path_factory.mktemp("openbao")) as found:
        yield found


@pytest.fixture(scope="module")
def system(bao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with one more profile, whose CA is OpenBao's."""
    layout = prepared(tmp_path_factory.mktemp("system") / "data")
    token = asyncio.run(prepare(bao, layout.root, "rsa"))
    write_private(layout.root / "bao.token", token.encode())
    ra = asyncio.run(_make_ra(bao, layout))
    pin = spki_sha256(spki(x509.load_pem_x509_certificate((layout.root / "bao.pem").read_bytes())))
    keys = {"issuer_id": "bao", "ca_spki_sha256": pin, "legacy": True, "renewal_window": "0s"}
    add_profiles(layout, {PROFILE: keys | {"ra_cert_path": ra, "ra_key_path": ra}})
    table = (
        '\n[issuers.bao]\nkind = "openbao"\nca_cert_path = "bao.pem"\nlease = "5s"\n'
        f'[issuers.bao.options]\nurl = "http://127.0.0.1:{bao.port}"\ntoken_path = "bao.token"\n'
    )
    write_private(layout.config, f"{layout.config.read_text()}{table}".encode())
    configure(layout.config, "certificate_profiles.device", max_ttl="90d")
    with running(layout.root, "--issuers", "2") as found:
        yield found


async def _make_ra(bao: OpenBao, layout: Layout) -> list[str]:
    """RA certificates from OpenBao: one that signs, one that decrypts."""
    names = []
    for use, usage in (("signing", "DigitalSignature"), ("encryption", "KeyEncipherment")):
        key = rsa.generate_private_key(65537, 2048)
        csr = x509.CertificateSigningRequestBuilder(pki.name(f"RA {use}")).sign(
            key, hashes.SHA256()
        )
        body = {"csr": csr.public_bytes(Encoding.PEM).decode(), "key_usage": [usage], "ttl": "720h"}
        made = (await bao.call("POST", "pki/sign-verbatim", body))["data"]["certificate"]
        names.append(f"bao-{use}.pem")
        write_private(layout.root / names[-1], f"{made}\n".encode() + pki.private_pem(key))
    return names


@pytest.fixture
def client(tmp_path: Path) -> ScepClient:
    return ScepClient(need("scepclient", "scep"), tmp_path, new_name("scepclient"))


def enroll(system: System, client: ScepClient) -> x509.Certificate:
    ended(client.enroll(system.url(PROFILE), system.challenge(PROFILE)), 0)
    return x509.load_pem_x509_certificate(client.files[0].read_bytes())


def serial_of(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def fetch(bao: OpenBao, path: str) -> bytes:
    answer = httpx.get(f"http://127.0.0.1:{bao.port}/v1/pki/{path}", trust_env=False)
    assert answer.is_success
    return answer.content


def test_a_client_enrolls_renews_and_is_revoked(
    system: System, bao: OpenBao, client: ScepClient, tmp_path: Path
) -> None:
    ca = x509.load_pem_x509_certificate((system.data / "bao.pem").read_bytes())
    old = enroll(system, client)
    old.verify_directly_issued_by(ca)
    new = enroll(system, client)
    new.verify_directly_issued_by(ca)
    assert new.serial_number != old.serial_number
    assert new.public_key() == old.public_key()

    revoked = system.cli(
        "ca", "revoke", serial_of(old), "--issuer", "bao", "--config", str(system.config)
    )
    assert revoked.returncode == 0, revoked.stdout + revoked.stderr
    openssl = need("openssl", "openssl")
    (tmp_path / "crl.pem").write_bytes(fetch(bao, "crl/pem"))
    for certificate, expected in ((old, "certificate revoked"), (new, "OK")):
        (tmp_path / "leaf.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        command = [openssl, "verify", "-crl_check", "-CAfile", str(system.data / "bao.pem")]
        command += ["-CRLfile", "crl.pem", "leaf.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert expected in done.stdout + done.stderr
        asked = succeed(
            [openssl, "ocsp", "-issuer", system.data / "bao.pem", "-cert", "leaf.pem",
             "-url", f"http://127.0.0.1:{bao.port}/v1/pki/ocsp",
             "-CAfile", system.data / "bao.pem", "-no_nonce"],
            tmp_path,
        )  # fmt: skip
        assert f"leaf.pem: {'good' if expected == 'OK' else 'revoked'}" in asked.stdout


def test_what_happened_is_on_the_record(system: System, client: ScepClient) -> None:
    enroll(system, client)
    shown = system.cli("audit", "show", client.name, "--config", str(system.config)).stdout

    assert "CertificateOrdered" in shown
    assert "CertificateIssued" in shown
    assert system.challenge(PROFILE) not in shown


def test_a_ca_that_was_sealed_delays_a_device_and_loses_nothing(
    system: System, bao: OpenBao, client: ScepClient
) -> None:
    """SIGSTOP: calls hang, their outcome is unknown, and a search tells it afterwards."""
    bao.pause()
    with client.start(system.url(PROFILE), system.challenge(PROFILE)) as process:
        wait_until(
            lambda: (
                "CertificateOrdered"
                in system.cli("audit", "show", client.name, "--config", str(system.config)).stdout
            ),
            30,
            "an order",
        )
        bao.resume()
        assert process.wait(90) == 0
    certificate = x509.load_pem_x509_certificate(client.files[0].read_bytes())
    listed = asyncio.run(bao.call("LIST", "pki/certs/detailed"))["data"]["key_info"]
    made = [info for info in listed.values() if info["common_name"] == client.name]

    assert len(made) == 1
    assert client.name in certificate.subject.rfc4514_string()


def test_doctor_tells_what_is_wrong(system: System) -> None:
    good = system.cli("doctor", "issuer", "bao", "--config", str(system.config))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "ok: logged in with token" in good.stdout
    assert f"SCEP profiles: {PROFILE}" in good.stdout
    token = (system.data / "bao.token").read_bytes()
    write_private(system.data / "bao.token", b"s.of-nobody")
    bad = system.cli("doctor", "issuer", "bao", "--config", str(system.config))
    write_private(system.data / "bao.token", token)

    assert bad.returncode == 1
    assert "does not permit this call (403)" in bad.stderr
    assert "s.of-nobody" not in bad.stderr + bad.stdout
