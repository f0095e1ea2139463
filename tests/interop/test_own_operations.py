"""`scepstream enroll`: every operation, on both forms of RA certificates."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.clients import Finished, ended, new_name, told
from tests.interop.lab import SPLIT, Side
from tests.interop.verify import (
    PKCS_REQ,
    RENEWAL_REQ,
    check_crl,
    check_enrolled,
    check_fetched,
    check_refused,
    check_renewed,
)

ISSUED, REFUSED, PENDING = 0, 3, 4
split = pytest.mark.parametrize("side", [SPLIT], indirect=True)


@dataclass(frozen=True)
class Device:
    """One device's folder, name and endpoint."""

    side: Side
    folder: Path
    name: str
    manual: bool = False

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "cert.pem", self.folder / "key.pem"

    @property
    def profile(self) -> str:
        return self.side.profile(manual=self.manual)

    def __call__(self, *options: str, challenge: str = "") -> Finished:
        challenge = challenge or self.side.challenge(manual=self.manual)
        url, system = self.side.url(manual=self.manual), self.side.system
        return system.cli(
            "enroll", url, "--cn", self.name, "--challenge", challenge, "--out", str(self.folder),
            "--ca-file", str(system.ca_file), *options,
        )  # fmt: skip

    def enroll(self) -> x509.Certificate:
        ended(self(), ISSUED)
        return self.check()

    def check(self) -> x509.Certificate:
        return check_enrolled(self.side.system, self.profile, self.files, f"CN={self.name}")


@pytest.fixture
def device(side: Side, tmp_path: Path) -> Device:
    return Device(side, tmp_path / "device", new_name("own"))


@pytest.fixture
def held(side: Side, tmp_path: Path) -> Device:
    """A device on a profile where an operator decides."""
    return Device(side, tmp_path / "held", new_name("own"), manual=True)


@pytest.mark.matrix("own", "enrol")
def test_enrolls(device: Device) -> None:
    device.enroll()


@pytest.mark.matrix("own", "renew")
def test_renews_by_a_renewalreq_with_a_new_key(device: Device) -> None:
    old = device.enroll()
    ended(device("--renew"), ISSUED)
    new = check_renewed(device.side.system, device.profile, device.files, old, RENEWAL_REQ)
    assert new.public_key() != old.public_key()


@split
@pytest.mark.matrix("own", "renew")
def test_renews_by_a_pkcsreq_too(device: Device) -> None:
    old = device.enroll()
    ended(device("--renew", "--as-pkcsreq"), ISSUED)
    check_renewed(device.side.system, device.profile, device.files, old, PKCS_REQ)


@pytest.mark.matrix("own", "poll")
def test_polls_until_the_operator_has_approved(held: Device) -> None:
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(held, "--poll")
        held.side.approve(held.name)
        done = ended(asking.result(), ISSUED)
    assert "PENDING; polling" in done.stdout, told(done)
    held.check()


@split
def test_a_kept_key_is_asked_for_again_after_the_approval(held: Device) -> None:
    ended(held(), PENDING)
    held.side.approve(held.name)
    ended(held("--poll"), ISSUED)
    held.check()


@pytest.mark.matrix("own", "GetCert")
def test_gets_the_certificate_of_another_device(device: Device, tmp_path: Path) -> None:
    other = Device(device.side, tmp_path / "other", new_name("own")).enroll()
    device.enroll()
    serial = f"{other.serial_number:x}"
    ended(device("--get-cert", serial), ISSUED)
    check_fetched(device.folder / f"{serial}.pem", other)


@pytest.mark.matrix("own", "GetCRL")
def test_gets_the_crl(device: Device) -> None:
    ended(device("--get-crl"), ISSUED)
    crl = x509.load_pem_x509_crl((device.folder / "crl.pem").read_bytes())
    check_crl(device.side.system, crl)


@pytest.mark.matrix("own", "refusal")
def test_wrong_challenge_is_refused(device: Device) -> None:
    done = ended(device(challenge="wrong"), REFUSED)
    assert "BAD_MESSAGE_CHECK" in done.stdout, told(done)
    check_refused(device.side.system, device.profile, device.name)


@split
@pytest.mark.matrix("own", "refusal")
def test_an_unknown_serial_number_is_refused(device: Device) -> None:
    done = ended(device("--get-cert", "4711"), REFUSED)
    assert "BAD_CERT_ID" in done.stdout, told(done)


@split
@pytest.mark.matrix("own", "refusal")
def test_a_denied_request_is_refused_with_the_operator_s_words(held: Device) -> None:
    ended(held(), PENDING)
    held.side.deny(held.name, "not one of ours")
    done = ended(held("--poll"), REFUSED)
    assert "BAD_REQUEST" in done.stdout, told(done)
    assert "not one of ours" in done.stdout, told(done)
    check_refused(held.side.system, held.profile, held.name, "denied")
