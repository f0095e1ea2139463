"""`scepstream enroll`: its files, its exit statuses, and whom it believes."""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.interop.clients import Finished, ended, new_name, succeed, told
from tests.interop.verify import check_enrolled, check_issued, records
from tests.support.system import System
from tests.support.tools import need

ISSUED, ERROR, REFUSED, UNREACHABLE = 0, 1, 3, 5
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")


@dataclass(frozen=True)
class Device:
    """One device's folder and name."""

    system: System
    folder: Path
    name: str

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "cert.pem", self.folder / "key.pem"

    def enroll(self, *options: str | Path, challenge: str = "", url: str = "") -> Finished:
        challenge = challenge or self.system.challenge()
        done = self.system.cli(
            "enroll", url or self.system.url(), "--cn", self.name, "--challenge", challenge,
            "--out", str(self.folder), *map(str, options),
        )  # fmt: skip
        assert challenge not in done.stdout + done.stderr
        assert "PRIVATE KEY" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, told(done)
        return done

    def is_untouched(self) -> bool:
        return not self.folder.exists()


@pytest.fixture
def device(system: System, tmp_path: Path) -> Device:
    return Device(system, tmp_path / "device", new_name("own"))


@pytest.fixture
def closed_url() -> Iterator[str]:
    """A URL whose port is taken, but nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/scep/demo"


@pytest.fixture
def other_ca(tmp_path: Path) -> Path:
    """A CA that has nothing to do with the system."""
    command = [need("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
    command += ["-subj", "/CN=another CA", "-keyout", "other.key", "-out", "other.pem"]
    succeed(command, tmp_path)
    return tmp_path / "other.pem"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def fingerprint(system: System) -> str:
    ca = x509.load_pem_x509_certificate(system.ca_file.read_bytes())
    return ca.fingerprint(hashes.SHA256()).hex()


def colons(digits: str) -> str:
    """As openssl writes a fingerprint."""
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)).upper()


def test_issued_and_written(system: System, device: Device) -> None:
    done = ended(device.enroll("--ca-file", system.ca_file), ISSUED)
    certificate = check_enrolled(system, "demo", device.files, f"CN={device.name}")
    assert f"{certificate.serial_number:x}" in done.stdout
    assert "(pinned)" in done.stdout
    assert {p.name for p in device.folder.iterdir()} == {"key.pem", "cert.pem", "chain.pem"}
    assert mode(device.folder / "key.pem") == 0o600
    chain = x509.load_pem_x509_certificates((device.folder / "chain.pem").read_bytes())
    assert chain == x509.load_pem_x509_certificates(system.ca_file.read_bytes())


def test_enrolls_on_the_default_profile_and_on_legacy(system: System, tmp_path: Path) -> None:
    for profile, url in (("demo", system.run["scep_url"]), ("legacy", system.url("legacy"))):
        device = Device(system, tmp_path / profile, new_name("own"))
        ended(device.enroll(challenge=system.challenge(profile), url=url), ISSUED)
        check_enrolled(system, profile, device.files, f"CN={device.name}")


def test_every_kind_of_san_lands_in_the_certificate(system: System, device: Device) -> None:
    sans = {
        "dns:device.example": x509.DNSName("device.example"),
        "bare.example": x509.DNSName("bare.example"),
        "email:device@example.org": x509.RFC822Name("device@example.org"),
        "ip:192.0.2.7": x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
        "ip:2001:db8::7": x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
        "uri:urn:device:7": x509.UniformResourceIdentifier("urn:device:7"),
        "upn:device@corp.example": x509.OtherName(UPN, b"\x0c\x13device@corp.example"),
    }
    ended(device.enroll(*(part for san in sans for part in ("--san", san))), ISSUED)
    check_enrolled(system, "demo", device.files, f"CN={device.name}", list(sans.values()))


def test_longer_key(system: System, device: Device) -> None:
    ended(device.enroll("--key", "rsa:3072"), ISSUED)
    check_issued(system, device.files, f"CN={device.name}")
    key = load_pem_private_key(device.files[1].read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072


@pytest.mark.parametrize("key", ["rsa:1024", "ec:p192", ""])
def test_unsupported_key_is_an_error(device: Device, key: str) -> None:
    done = ended(device.enroll("--key", key), ERROR)
    assert "rsa:2048" in done.stderr, told(done)
    assert device.is_untouched()


@pytest.mark.parametrize("san", ["sid:S-1-5-7", "ip:300.1.1.1", "dns:dévice"])
def test_unusable_san_is_an_error(device: Device, san: str) -> None:
    done = ended(device.enroll("--san", san), ERROR)
    assert san.partition(":")[0] in done.stderr, told(done)
    assert not device.files[0].exists()


def test_unreachable_server(device: Device, closed_url: str) -> None:
    done = ended(device.enroll(url=closed_url), UNREACHABLE)
    assert "cannot reach" in done.stderr, told(done)
    assert device.is_untouched()


def test_unknown_profile_is_an_error(system: System, device: Device) -> None:
    ended(device.enroll(url=f"{system.run['scep_url']}/nowhere"), ERROR)
    assert device.is_untouched()


@pytest.mark.parametrize("name", ["key.pem", "cert.pem", "chain.pem"])
def test_existing_file_is_not_overwritten(device: Device, name: str) -> None:
    device.folder.mkdir()
    (device.folder / name).write_text("precious")
    done = ended(device.enroll(), ERROR)
    assert "--force" in done.stderr, told(done)
    assert [p.name for p in device.folder.iterdir()] == [name]
    assert (device.folder / name).read_text() == "precious"


def test_force_overwrites_and_closes_the_key(system: System, device: Device) -> None:
    """Whoever could read the old key file must not read the new key in it."""
    device.folder.mkdir()
    for name in ("key.pem", "cert.pem", "chain.pem"):
        (device.folder / name).write_text("precious")
        (device.folder / name).chmod(0o644)
    ended(device.enroll("--force"), ISSUED)
    check_issued(system, device.files, f"CN={device.name}")
    assert mode(device.files[1]) == 0o600


def test_right_fingerprint(system: System, device: Device) -> None:
    done = ended(device.enroll("--fingerprint", colons(fingerprint(system))), ISSUED)
    assert "(pinned)" in done.stdout, told(done)
    check_issued(system, device.files, f"CN={device.name}")


def test_unpinned_ca_is_said_so(system: System, device: Device) -> None:
    done = ended(device.enroll(), ISSUED)
    assert "NOT pinned" in done.stdout, told(done)
    assert fingerprint(system) in done.stdout, told(done)


def test_wrong_fingerprint_is_an_error(system: System, device: Device) -> None:
    done = ended(device.enroll("--fingerprint", "00" * 32), ERROR)
    assert "fingerprint" in done.stderr, told(done)
    assert device.is_untouched()
    assert records(system, device.name) == []


def test_another_ca_is_an_error(system: System, device: Device, other_ca: Path) -> None:
    done = ended(device.enroll("--ca-file", other_ca), ERROR)
    assert "--ca-file" in done.stderr, told(done)
    assert device.is_untouched()
    assert records(system, device.name) == []


def test_unreadable_ca_file_is_an_error(device: Device, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "missing.pem"):
        done = ended(device.enroll("--ca-file", tmp_path / name), ERROR)
        assert name in "".join(done.stderr.split()), told(done)
    assert device.is_untouched()


# A signer with a key of its own


@pytest.mark.parametrize("profile", ["demo", "legacy", "corp"])
def test_another_key_may_sign_on_every_profile(
    system: System, tmp_path: Path, profile: str
) -> None:
    folder, name = tmp_path / "device", new_name("own")
    way = system.run["profiles"][profile]
    challenge = ["--challenge", way["challenge"]] if way["challenge"] else []
    connector = ["--connector", way["connector"]] if "connector" in way else []
    ended(
        system.cli(
            "enroll", way["url"], "--cn", name, *challenge, *connector,
            "--signer-key", "rsa:2048", "--out", str(folder),
        ),
        ISSUED,
    )  # fmt: skip
    files = folder / "cert.pem", folder / "key.pem"
    certificate = check_enrolled(system, profile, files, f"CN={name}")
    signer = load_pem_private_key((folder / "signer-key.pem").read_bytes(), None)

    assert certificate.public_key() != signer.public_key()
    assert (folder / "signer-key.pem").stat().st_mode & 0o777 == 0o600


def test_an_ec_key_that_is_not_the_requests_cannot_be_answered(device: Device) -> None:
    done = ended(device.enroll("--signer-key", "ec:p256"), REFUSED)

    assert "BAD_ALG" in done.stdout
    assert records(device.system, device.name) == []


def test_a_renewal_has_no_signer_but_the_certificate(device: Device) -> None:
    ended(device.enroll(), ISSUED)
    done = ended(device.enroll("--renew", "--signer-key", "rsa:2048"), ERROR)

    assert "--signer-key" in done.stderr
