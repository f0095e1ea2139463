"""Debian's `scepclient`: always single DES and SHA-1, so it lives on the legacy profiles."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.clients import Finished, ended, new_name, run, told
from tests.interop.lab import Side
from tests.interop.matrix import FORMS
from tests.interop.verify import (
    RENEWAL_REQ,
    check_enrolled,
    check_refused,
    check_renewed,
    let_a_second_pass,
    records,
)
from tests.support.system import System
from tests.support.tools import need

POLL_SECONDS = 30  # fixed in the client
SAID = "said.txt"


@dataclass(frozen=True)
class ScepClient:
    """One device's folder: scepclient leaves CSR and self-signed certificate beside its key."""

    program: str
    folder: Path
    name: str

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "cert.pem", self.folder / "key.pem"

    @property
    def subject(self) -> str:
        return f"C=NL, O=Lab, OU=Interop, CN={self.name}"

    def command(self, url: str, challenge: str) -> list[str]:
        certificate, key = self.files
        options = {
            "-server-url": url, "-challenge": challenge, "-cn": self.name,
            "-certificate": str(certificate), "-private-key": str(key),
            "-organization": "Lab", "-country": "NL", "-ou": "Interop",
        }  # fmt: skip
        return [self.program, *(part for o in options.items() for part in o)]

    def enroll(self, url: str, challenge: str) -> Finished:
        """Or renew, where there is a certificate."""
        return run(self.command(url, challenge), self.folder)

    def start(self, url: str, challenge: str) -> subprocess.Popen[bytes]:
        """As `enroll`, not waited for; what it says goes to a file."""
        command = self.command(url, challenge)
        with (self.folder / SAID).open("w") as said:
            return subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )


@pytest.fixture
def client(tmp_path: Path) -> ScepClient:
    return ScepClient(need("scepclient", "scep"), tmp_path, new_name("scepclient"))


@dataclass(frozen=True)
class Polling:
    """A client that was told PENDING, approved meanwhile."""

    client: ScepClient
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def polling(
    system: System, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Polling]]:
    """One for each form of RA certificates, at the same time: each waits for half a minute."""
    program, waiting = need("scepclient", "scep"), {}
    try:
        for form in FORMS:
            side, folder = Side(system, form), tmp_path_factory.mktemp("polling")
            device = ScepClient(program, folder, new_name("scepclient"))
            url, challenge = (f(legacy=True, manual=True) for f in (side.url, side.challenge))
            waiting[form] = Polling(device, device.start(url, challenge))
            side.approve(device.name)
        yield waiting
    finally:
        for found in waiting.values():
            found.process.kill()
            found.process.wait()


@pytest.mark.matrix("scepclient", "enrol")
def test_enrolls(side: Side, client: ScepClient) -> None:
    ended(client.enroll(side.url(legacy=True), side.challenge(legacy=True)), 0)
    check_enrolled(side.system, side.profile(legacy=True), client.files, client.subject)


@pytest.mark.matrix("scepclient", "renew")
def test_renews_by_a_renewalreq_with_its_old_key(side: Side, client: ScepClient) -> None:
    url, challenge, profile = (f(legacy=True) for f in (side.url, side.challenge, side.profile))
    ended(client.enroll(url, challenge), 0)
    old = check_enrolled(side.system, profile, client.files, client.subject)
    let_a_second_pass(old)
    ended(client.enroll(url, challenge), 0)
    new = check_renewed(side.system, profile, client.files, old, RENEWAL_REQ)
    assert new.public_key() == old.public_key()


@pytest.mark.matrix("scepclient", "poll")
def test_polls_by_sending_its_request_again(side: Side, polling: dict[str, Polling]) -> None:
    found = polling[side.ra]
    device, profile = found.client, side.profile(legacy=True, manual=True)
    said = device.folder / SAID
    assert found.process.wait(2 * POLL_SECONDS) == 0, said.read_text()
    assert "PENDING" in said.read_text()
    check_enrolled(side.system, profile, device.files, device.subject)


@pytest.mark.matrix("scepclient", "refusal")
def test_wrong_challenge_is_refused(side: Side, client: ScepClient) -> None:
    done = ended(client.enroll(side.url(legacy=True), "wrong"), 1)
    assert "badMessageCheck" in told(done)
    assert not client.files[0].exists()
    check_refused(side.system, side.profile(legacy=True), client.name)


def test_a_certificate_of_another_profile_is_not_renewed(
    system: System, client: ScepClient
) -> None:
    ended(client.enroll(system.url("legacy"), system.challenge("legacy")), 0)
    done = ended(client.enroll(system.url("combined-legacy"), system.challenge("legacy")), 1)
    assert "badRequest" in told(done)
    assert len(x509.load_pem_x509_certificates(client.files[0].read_bytes())) == 1


def test_challenge_of_another_profile_is_refused(system: System, client: ScepClient) -> None:
    done = ended(client.enroll(system.url("legacy"), system.challenge("demo")), 1)
    assert "badMessageCheck" in told(done)
    assert not client.files[0].exists()
    check_refused(system, "legacy", client.name)


def test_modern_profile_does_not_take_des_and_sha1(system: System, client: ScepClient) -> None:
    done = ended(client.enroll(system.url("demo"), system.challenge("demo")), 1)
    assert "badAlg" in told(done)
    assert not client.files[0].exists()
    assert records(system, client.name) == []
