"""strongSwan's `pki`: reads RA certificates by their use, verifies the whole chain."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.clients import Finished, ended, new_name, run, succeed, told
from tests.interop.lab import Side
from tests.interop.verify import (
    RENEWAL_REQ,
    check_enrolled,
    check_refused,
    check_renewed,
    name_of,
    records,
    verify_strictly,
)
from tests.support.system import System
from tests.support.tools import need

SAN = "device.example"
SANS = [x509.DNSName(SAN)]


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
        """Which of the fetched RA certificates is for this use."""
        (found,) = (path for path in self.folder.glob("ra*.pem") if getattr(key_usage(path), usage))
        return found

    def new_key(self, path: Path) -> Path:
        made = succeed([self.program, "--gen", "--type", "rsa", "--outform", "pem"], self.folder)
        path.write_text(made.stdout)
        return path

    def enroll(
        self, system: System, name: str, *options: str, profile: str = "demo", challenge: str = ""
    ) -> Finished:
        """Key, GetCACert and PKCSReq."""
        self.fetch_ca(system.url(profile))
        command = self.command(system, name, profile, challenge or system.challenge(profile))
        return self.ask([*command, *options])

    def renew(self, system: System, name: str, profile: str, challenge: str = "") -> Finished:
        """A new key under the same names; the certificate there is signs."""
        for path, old in zip(self.files, self.old_files, strict=True):
            path.rename(old)
        certificate, key = self.old_files
        command = self.command(system, name, profile, challenge or system.challenge(profile))
        return self.ask([*command, "--cert", certificate, "--key", key])

    @property
    def old_files(self) -> tuple[Path, Path]:
        return self.folder / "old-cert.pem", self.folder / "old-key.pem"

    def command(self, system: System, name: str, profile: str, challenge: str) -> list[str | Path]:
        key = self.new_key(self.files[1])
        command = [self.program, "--scep", "--url", system.url(profile), "--in", key]
        command += ["--dn", f"C=NL, O=Lab, CN={name}", "--san", SAN, "--password", challenge]
        command += ["--cacert-enc", self.ra("key_encipherment"), "--cacert-sig", "ca.pem"]
        return [*command, "--maxpolltime", "30", "--interval", "1", "--outform", "pem"]

    def ask(self, command: list[str | Path]) -> Finished:
        """`pki` writes the certificate to its output."""
        done = run(command, self.folder)
        self.files[0].write_text(done.stdout)
        return done


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(need("pki", "strongswan-pki"), tmp_path)


def subject(name: str) -> str:
    return f"C=NL, O=Lab, CN={name}"


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


@pytest.mark.matrix("pki", "enrol")
def test_enrolls(side: Side, pki: Pki) -> None:
    name, profile = new_name("pki"), side.profile()
    ended(pki.enroll(side.system, name, profile=profile), 0)
    check_enrolled(side.system, profile, pki.files, subject(name), SANS)


@pytest.mark.matrix("pki", "renew")
def test_renews_by_a_renewalreq_with_a_new_key(side: Side, pki: Pki) -> None:
    name, profile = new_name("pki"), side.profile()
    ended(pki.enroll(side.system, name, profile=profile), 0)
    old = check_enrolled(side.system, profile, pki.files, subject(name), SANS)
    ended(pki.renew(side.system, name, profile), 0)
    check_renewed(side.system, profile, pki.files, old, RENEWAL_REQ)


@pytest.mark.matrix("pki", "poll")
def test_polls_until_the_operator_has_approved(side: Side, pki: Pki) -> None:
    name, profile = new_name("pki"), side.profile(manual=True)
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(pki.enroll, side.system, name, profile=profile)
        side.approve(name)
        done = ended(asking.result(), 0)
    assert "polling" in done.stderr, told(done)
    check_enrolled(side.system, profile, pki.files, subject(name), SANS)


@pytest.mark.matrix("pki", "refusal")
def test_wrong_challenge_is_refused(side: Side, pki: Pki) -> None:
    name, profile = new_name("pki"), side.profile()
    done = ended(pki.enroll(side.system, name, profile=profile, challenge="wrong"), 1)
    assert "badMessageCheck" in told(done)
    assert not done.stdout
    check_refused(side.system, profile, name)


def token(system: System, name: str) -> str:
    """A signed challenge for the names that `pki` asks for."""
    directory = system.run["profiles"]["corp"]["connector"]
    options = ("--dir", directory, "--cn", name, "--san", f"dns:{SAN}")
    return ended(system.cli("connector", "token", *options), 0).stdout.strip()


def test_enrolls_and_renews_with_signed_challenges(system: System, pki: Pki) -> None:
    """A renewal under the profile brings a token of its own."""
    name = new_name("pki")
    ended(pki.enroll(system, name, profile="corp", challenge=token(system, name)), 0)
    old = check_enrolled(system, "corp", pki.files, subject(name), SANS)
    ended(pki.renew(system, name, "corp", token(system, name)), 0)
    check_renewed(system, "corp", pki.files, old, RENEWAL_REQ)


def test_a_signed_challenge_for_another_device_is_refused(system: System, pki: Pki) -> None:
    name = new_name("pki")
    challenge = token(system, new_name("another"))
    done = ended(pki.enroll(system, name, profile="corp", challenge=challenge), 1)
    assert "badRequest" in told(done)
    check_refused(system, "corp", name, "claim_mismatch")


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_enrolls_with_other_digests(system: System, pki: Pki, digest: str) -> None:
    name = new_name("pki")
    ended(pki.enroll(system, name, "--cipher", "aes", "--digest", digest), 0)
    check_enrolled(system, "demo", pki.files, subject(name), SANS)


def test_enrolls_with_3des_and_sha1_where_they_are_allowed(system: System, pki: Pki) -> None:
    name, options = new_name("pki"), ("--cipher", "des3", "--digest", "sha1")
    ended(pki.enroll(system, name, *options, profile="legacy"), 0)
    check_enrolled(system, "legacy", pki.files, subject(name), SANS)


def test_modern_profile_does_not_take_3des(system: System, pki: Pki) -> None:
    name = new_name("pki")
    done = pki.enroll(system, name, "--cipher", "des3", "--digest", "sha256")
    assert done.returncode != 0, told(done)
    assert not done.stdout
    assert records(system, name) == []
