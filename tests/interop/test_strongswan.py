"""strongSwan's `pki`: reads RA certificates by their use, verifies the whole chain."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.clients import Finished, ended, new_name, run, succeed, told
from tests.interop.verify import check_enrolled, check_refused, name_of, records, verify_strictly
from tests.system import System
from tests.tools import need

SAN = "device.example"


@dataclass(frozen=True)
class Pki:
    """`pki` in one device's folder."""

    program: str
    folder: Path

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / "cert.pem", self.folder / "key.pem"

    def fetch_ca(self, url: str) -> None:
        """Leaves ca.pem, ra.pem and ra-2.pem."""
        command = [self.program, "--scepca", "--url", url, "--caout", "ca.pem"]
        succeed([*command, "--raout", "ra.pem", "--outform", "pem"], self.folder)

    def ra(self, usage: str) -> Path:
        """Which of the two fetched RA certificates is for this use."""
        paths = sorted(self.folder.glob("ra*.pem"))
        assert len(paths) == 2
        (found,) = (path for path in paths if getattr(key_usage(path), usage))
        return found

    def enroll(
        self, system: System, name: str, *options: str, profile: str = "demo", challenge: str = ""
    ) -> Finished:
        """Key, GetCACert and PKCSReq; `pki` writes the certificate to its output."""
        self.fetch_ca(system.url(profile))
        certificate, key = self.files
        made = succeed([self.program, "--gen", "--type", "rsa", "--outform", "pem"], self.folder)
        key.write_text(made.stdout)
        command = [self.program, "--scep", "--url", system.url(profile), "--in", key]
        command += ["--dn", f"C=NL, O=Lab, CN={name}", "--san", SAN]
        command += ["--password", challenge or system.challenge(profile)]
        command += ["--cacert-enc", self.ra("key_encipherment"), "--cacert-sig", "ca.pem"]
        command += ["--maxpolltime", "30", "--interval", "1", "--outform", "pem", *options]
        done = run(command, self.folder)
        certificate.write_text(done.stdout)
        return done


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(need("pki", "strongswan-pki"), tmp_path)


def key_usage(path: Path) -> x509.KeyUsage:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.extensions.get_extension_for_class(x509.KeyUsage).value


@pytest.mark.parametrize("profile", ["demo", "legacy"])
def test_fetches_ca_and_both_ra_certificates(system: System, pki: Pki, profile: str) -> None:
    pki.fetch_ca(system.url(profile))
    fetched = x509.load_pem_x509_certificate((pki.folder / "ca.pem").read_bytes())
    assert fetched == x509.load_pem_x509_certificate(system.ca_file.read_bytes())
    for usage in ("key_encipherment", "digital_signature"):
        path = pki.ra(usage)
        verify_strictly(path, system.ca_file)
        issuer = x509.load_pem_x509_certificate(path.read_bytes()).issuer
        assert name_of(issuer) == name_of(fetched.subject)


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_enrolls_with_aes(system: System, pki: Pki, digest: str) -> None:
    name = new_name("pki")
    ended(pki.enroll(system, name, "--cipher", "aes", "--digest", digest), 0)
    subject = f"C=NL, O=Lab, CN={name}"
    check_enrolled(system, "demo", pki.files, subject, [x509.DNSName(SAN)])


def test_enrolls_with_3des_and_sha1_where_they_are_allowed(system: System, pki: Pki) -> None:
    name, options = new_name("pki"), ("--cipher", "des3", "--digest", "sha1")
    ended(pki.enroll(system, name, *options, profile="legacy"), 0)
    subject = f"C=NL, O=Lab, CN={name}"
    check_enrolled(system, "legacy", pki.files, subject, [x509.DNSName(SAN)])


def test_wrong_challenge_is_refused(system: System, pki: Pki) -> None:
    name = new_name("pki")
    done = pki.enroll(system, name, challenge="wrong")
    ended(done, 1)
    assert "badMessageCheck" in told(done)
    assert not done.stdout
    check_refused(system, "demo", name)


def test_modern_profile_does_not_take_3des(system: System, pki: Pki) -> None:
    name = new_name("pki")
    done = pki.enroll(system, name, "--cipher", "des3", "--digest", "sha256")
    assert done.returncode != 0, told(done)
    assert not done.stdout
    assert records(system, name) == []
