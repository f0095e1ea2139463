"""Debian's `scepclient`: always single DES and SHA-1, so it lives on the legacy profile."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.clients import Finished, ended, new_name, run, told
from tests.interop.verify import check_enrolled, check_refused, records
from tests.system import System
from tests.tools import need


@dataclass(frozen=True)
class ScepClient:
    """One device's folder: scepclient leaves CSR and self-signed certificate beside its key."""

    program: str
    folder: Path

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "cert.pem", self.folder / "key.pem"

    def enroll(self, url: str, challenge: str, common_name: str) -> Finished:
        certificate, key = self.files
        options = {
            "-server-url": url, "-challenge": challenge, "-cn": common_name,
            "-certificate": str(certificate), "-private-key": str(key),
            "-organization": "Lab", "-country": "NL", "-ou": "Interop",
        }  # fmt: skip
        return run([self.program, *(part for o in options.items() for part in o)], self.folder)


@pytest.fixture
def client(tmp_path: Path) -> ScepClient:
    return ScepClient(need("scepclient", "scep"), tmp_path)


def test_enrolls_two_devices(system: System, client: ScepClient) -> None:
    serials = set()
    for _ in range(2):
        folder = client.folder / new_name("folder")
        folder.mkdir()
        device, name = ScepClient(client.program, folder), new_name("scepclient")
        url, challenge = system.url("legacy"), system.challenge("legacy")
        ended(device.enroll(url, challenge, name), 0)
        subject = f"C=NL, O=Lab, OU=Interop, CN={name}"
        serials.add(check_enrolled(system, "legacy", device.files, subject).serial_number)
    assert len(serials) == 2


def test_wrong_challenge_is_refused(system: System, client: ScepClient) -> None:
    name = new_name("scepclient")
    done = ended(client.enroll(system.url("legacy"), "wrong", name), 1)
    assert "badMessageCheck" in told(done)
    assert not client.files[0].exists()
    check_refused(system, "legacy", name)


def test_challenge_of_another_profile_is_refused(system: System, client: ScepClient) -> None:
    name = new_name("scepclient")
    done = ended(client.enroll(system.url("legacy"), system.challenge("demo"), name), 1)
    assert "badMessageCheck" in told(done)
    assert not client.files[0].exists()
    check_refused(system, "legacy", name)


def test_modern_profile_does_not_take_des_and_sha1(system: System, client: ScepClient) -> None:
    name = new_name("scepclient")
    done = ended(client.enroll(system.url("demo"), system.challenge("demo"), name), 1)
    assert "badAlg" in told(done)
    assert not client.files[0].exists()
    assert records(system, name) == []
