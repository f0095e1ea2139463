"""scepreq, a Python library on asn1crypto and oscrypto: AES-256 and SHA-512 when offered."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.clients import Finished, ended, new_name, run, told
from tests.interop.scepreq_env import HERE, VERSIONS, mend, scepreq_python
from tests.interop.verify import check_enrolled, check_refused, records
from tests.system import System

SAN = "device.example"


@dataclass(frozen=True)
class ScepReq:
    python: Path
    folder: Path

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "cert.pem", self.folder / "key.pem"

    def enroll(
        self, url: str, challenge: str, name: str, san: str = "", signer: str = "own"
    ) -> Finished:
        driver = HERE / "scepreq_driver.py"
        return run([self.python, driver, url, challenge, name, san, signer], self.folder)


@pytest.fixture(scope="session")
def python() -> Path:
    return scepreq_python()


@pytest.fixture
def client(python: Path, tmp_path: Path) -> ScepReq:
    return ScepReq(python, tmp_path)


@pytest.mark.parametrize("profile", ["demo", "legacy"])
def test_enrolls(system: System, client: ScepReq, profile: str) -> None:
    name = new_name("scepreq")
    done = ended(client.enroll(system.url(profile), system.challenge(profile), name), 0)
    assert done.stdout == "1 certificates\n", told(done)
    check_enrolled(system, profile, client.files, f"CN={name}")


def test_enrolls_with_san(system: System, client: ScepReq) -> None:
    """The SAN comes in an extensionRequest of its own, beside the one with the usages."""
    name = new_name("scepreq")
    ended(client.enroll(system.url(), system.challenge(), name, SAN), 0)
    check_enrolled(system, "demo", client.files, f"CN={name}", [x509.DNSName(SAN)])


def test_wrong_challenge_is_refused(system: System, client: ScepReq) -> None:
    name = new_name("scepreq")
    done = ended(client.enroll(system.url(), "wrong", name), 3)
    assert done.stderr == "FAILURE BadMessageCheck\n", told(done)
    assert not client.files[0].exists()
    check_refused(system, "demo", name)


def test_signer_with_another_key_than_the_request_is_refused(
    system: System, client: ScepReq
) -> None:
    """As scepreq's own command line does it: the challenge is right all the same."""
    name = new_name("scepreq")
    done = ended(client.enroll(system.url(), system.challenge(), name, signer="strange"), 3)
    assert done.stderr == "FAILURE BadMessageCheck\n", told(done)
    assert not client.files[0].exists()
    assert records(system, name) == []


def test_mending_is_done_once_and_only_to_the_known_text(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("\n".join(VERSIONS))
    for _ in range(2):
        mend(source)
        assert source.read_text() == "\n".join(VERSIONS.values())
    source.write_text("something else")
    with pytest.raises(AssertionError, match="is not oscrypto"):
        mend(source)
