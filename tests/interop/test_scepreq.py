"""scepreq, a Python library on asn1crypto and oscrypto: AES-256 and SHA-512 when offered."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.clients import Finished, ended, new_name, run, told
from tests.interop.environments import HERE, VERSIONS, Environment, mend
from tests.interop.lab import COMBINED, SPLIT, Side
from tests.interop.verify import (
    check_crl,
    check_enrolled,
    check_fetched,
    check_refused,
    check_renewed,
    records,
)
from tests.support.system import System

SAN = "device.example"
ISSUED, REFUSED, PENDING = 0, 3, 4

split = pytest.mark.parametrize("side", [SPLIT], indirect=True)
combined = pytest.mark.parametrize("side", [COMBINED], indirect=True)


@dataclass(frozen=True)
class ScepReq:
    """The library, and the files of one device."""

    python: Path
    folder: Path

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "cert.pem", self.folder / "key.pem"

    def enroll(
        self, url: str, challenge: str, name: str, san: str = "", signer: str = "own"
    ) -> Finished:
        return self("enrol", url, challenge, name, san, signer)

    def __call__(self, operation: str, url: str, *arguments: str) -> Finished:
        driver = HERE / "scepreq_driver.py"
        return run([self.python, driver, operation, url, *arguments], self.folder)


@pytest.fixture(scope="session")
def python() -> Path:
    return Environment("scepreq").python()


@pytest.fixture
def client(python: Path, tmp_path: Path) -> ScepReq:
    return ScepReq(python, tmp_path)


@split
@pytest.mark.matrix("scepreq", "enrol")
def test_enrolls(side: Side, client: ScepReq) -> None:
    name = new_name("scepreq")
    done = ended(client.enroll(side.url(), side.challenge(), name), ISSUED)
    assert done.stdout == "1 certificates\n", told(done)
    check_enrolled(side.system, side.profile(), client.files, f"CN={name}")


@split
@pytest.mark.matrix("scepreq", "renew")
def test_renews_by_a_pkcsreq_that_the_old_certificate_signs(side: Side, client: ScepReq) -> None:
    name = new_name("scepreq")
    ended(client.enroll(side.url(), side.challenge(), name), ISSUED)
    old = check_enrolled(side.system, side.profile(), client.files, f"CN={name}")
    ended(client("renew", side.url(), side.challenge(), name), ISSUED)
    check_renewed(side.system, side.profile(), client.files, old)


@split
@pytest.mark.matrix("scepreq", "poll")
def test_polls_until_the_operator_has_approved(side: Side, client: ScepReq) -> None:
    name, url = new_name("scepreq"), side.url(manual=True)
    ended(client.enroll(url, side.challenge(manual=True), name), PENDING)
    ended(client("poll", url), PENDING)
    side.approve(name)
    ended(client("poll", url), ISSUED)
    check_enrolled(side.system, side.profile(manual=True), client.files, f"CN={name}")


@split
@pytest.mark.matrix("scepreq", "GetCert")
def test_gets_the_certificate_of_another_device(side: Side, client: ScepReq) -> None:
    ended(client.enroll(side.url(), side.challenge(), new_name("scepreq")), ISSUED)
    other = x509.load_pem_x509_certificate(client.files[0].read_bytes())
    ended(client.enroll(side.url(), side.challenge(), new_name("scepreq")), ISSUED)
    ended(client("get_cert", side.url(), str(other.serial_number)), ISSUED)
    check_fetched(client.folder / "fetched.pem", other)


@split
@pytest.mark.matrix("scepreq", "GetCRL")
def test_gets_the_crl(side: Side, client: ScepReq) -> None:
    ended(client.enroll(side.url(), side.challenge(), new_name("scepreq")), ISSUED)
    mine = x509.load_pem_x509_certificate(client.files[0].read_bytes())
    ended(client("get_crl", side.url(), str(mine.serial_number)), ISSUED)
    check_crl(side.system, x509.load_der_x509_crl((client.folder / "crl.der").read_bytes()))


@split
@pytest.mark.matrix("scepreq", "refusal")
def test_wrong_challenge_is_refused(side: Side, client: ScepReq) -> None:
    name = new_name("scepreq")
    done = ended(client.enroll(side.url(), "wrong", name), REFUSED)
    assert done.stderr == "FAILURE BadMessageCheck\n", told(done)
    assert not client.files[0].exists()
    check_refused(side.system, side.profile(), name)


@split
@pytest.mark.matrix("scepreq", "refusal")
def test_an_unknown_serial_number_is_refused(side: Side, client: ScepReq) -> None:
    ended(client.enroll(side.url(), side.challenge(), new_name("scepreq")), ISSUED)
    done = ended(client("get_cert", side.url(), "4711"), REFUSED)
    assert done.stderr == "FAILURE BadCertId\n", told(done)


@combined
def test_a_combined_ra_certificate_is_passed_over_for_the_ca_s(side: Side, client: ScepReq) -> None:
    """So nothing it sends can be opened: why the matrix has no cells for it there."""
    name = new_name("scepreq")
    done = ended(client.enroll(side.url(), side.challenge(), name), REFUSED)
    assert done.stderr == "FAILURE BadMessageCheck\n", told(done)
    assert not client.files[0].exists()
    assert records(side.system, name) == []


def test_enrolls_on_legacy(system: System, client: ScepReq) -> None:
    name = new_name("scepreq")
    ended(client.enroll(system.url("legacy"), system.challenge("legacy"), name), ISSUED)
    check_enrolled(system, "legacy", client.files, f"CN={name}")


def test_enrolls_with_san(system: System, client: ScepReq) -> None:
    """The SAN comes in an extensionRequest of its own, beside the one with the usages."""
    name = new_name("scepreq")
    ended(client.enroll(system.url(), system.challenge(), name, SAN), ISSUED)
    check_enrolled(system, "demo", client.files, f"CN={name}", [x509.DNSName(SAN)])


def test_signer_with_another_key_than_the_request_enrolls(system: System, client: ScepReq) -> None:
    """As scepreq's own command line does it."""
    name = new_name("scepreq")
    ended(client.enroll(system.url(), system.challenge(), name, signer="strange"), ISSUED)
    check_enrolled(system, "demo", client.files, f"CN={name}")


def test_mending_is_done_once_and_only_to_the_known_text(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("\n".join(VERSIONS))
    for _ in range(2):
        mend(source)
        assert source.read_text() == "\n".join(VERSIONS.values())
    source.write_text("something else")
    with pytest.raises(AssertionError, match="is not oscrypto"):
        mend(source)
