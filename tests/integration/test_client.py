"""`scepstream enroll` against a running system: every way to write, and every way to end."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from cli.enroll.client import CIPHER_NAMES, DIGEST_NAMES, TRANSPORTS
from shared.log.enrollment import State
from tests.support.prepared import command
from tests.support.requests import listed
from tests.support.system import System, wait_until

ISSUED, ERROR, REFUSED, PENDING, UNREACHABLE = 0, 1, 3, 4, 5
WEAK_CIPHERS, WEAK_DIGESTS = {"des", "des3"}, {"md5", "sha1"}
DIGESTS = ("sha1", "sha256", "sha512")


class Client:
    """One device's folder at one profile."""

    def __init__(self, system: System, profile: str, folder: Path) -> None:
        self.system, self.profile, self.folder = system, profile, folder
        self.said = ""

    def __call__(self, *options: str, challenge: str | None = None) -> int:
        """The exit status."""
        system, profile = self.system, self.profile
        challenge = system.challenge(profile) if challenge is None else challenge
        done = command(
            "enroll", system.url(profile), "--cn", self.folder.name, "--challenge", challenge,
            "--out", str(self.folder), "--ca-file", str(system.ca_file), *options,
        )  # fmt: skip
        self.said = done.stdout + done.stderr
        assert "PRIVATE KEY" not in self.said
        return done.returncode

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.folder / "cert.pem").read_bytes())

    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()


@pytest.fixture
def client(wide: System, tmp_path: Path, request: pytest.FixtureRequest) -> Client:
    """A device on the profile that is asked for, else where one may renew at any time."""
    return Client(wide, getattr(request, "param", "anytime"), tmp_path / f"client-{tmp_path.name}")


def at(profile: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("client", [profile], indirect=True)


# How messages are written


def _profile(cipher: str, digest: str = "") -> str:
    return "legacy" if cipher in WEAK_CIPHERS or digest in WEAK_DIGESTS else "anytime"


@pytest.mark.parametrize("cipher", CIPHER_NAMES)
@pytest.mark.parametrize("digest", DIGESTS)
def test_every_cipher_goes_with_every_digest(
    wide: System, tmp_path: Path, cipher: str, digest: str
) -> None:
    client = Client(wide, _profile(cipher, digest), tmp_path / f"client-{tmp_path.name}")
    assert client("--cipher", cipher, "--digest", digest) == ISSUED, client.said
    assert client.files() == {"key.pem", "cert.pem", "chain.pem"}


@pytest.mark.parametrize("digest", DIGEST_NAMES)
def test_every_digest_is_known(wide: System, tmp_path: Path, digest: str) -> None:
    client = Client(wide, _profile("", digest), tmp_path / f"client-{tmp_path.name}")
    assert client("--digest", digest) == ISSUED, client.said


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "also", [(), ("--pss",), ("--ber",), ("--get",), ("--pss", "--ber", "--get")]
)
def test_every_transport_goes_with_every_form(
    client: Client, transport: str, also: tuple[str, ...]
) -> None:
    assert client("--transport", transport, *also) == ISSUED, client.said


@pytest.mark.parametrize("kind", ["ec:p256", "ec:p384"])
def test_an_ec_device_enrolls_and_renews(client: Client, kind: str) -> None:
    assert client("--key", kind) == ISSUED, client.said
    first = client.certificate
    assert client("--renew", "--reuse-key") == ISSUED, client.said
    assert client.certificate.serial_number != first.serial_number
    assert client.certificate.public_key() == first.public_key()


# Renewal


@pytest.mark.parametrize("also", [(), ("--as-pkcsreq",), ("--pss", "--ber")])
def test_a_certificate_is_renewed_with_a_new_key(client: Client, also: tuple[str, ...]) -> None:
    assert client("--san", "dns:a.example") == ISSUED, client.said
    first = client.certificate
    assert client("--renew", *also) == ISSUED, client.said
    second = client.certificate
    assert (second.subject, second.serial_number != first.serial_number) == (first.subject, True)
    names = second.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["a.example"]
    assert second.public_key() != first.public_key()
    assert client("--renew") == ISSUED, client.said
    assert "renewal-key.pem" not in client.files()


@pytest.mark.parametrize("also", [(), ("--as-pkcsreq",)])
def test_a_certificate_is_renewed_with_its_key(client: Client, also: tuple[str, ...]) -> None:
    assert client() == ISSUED, client.said
    first, key = client.certificate, (client.folder / "key.pem").read_bytes()
    assert client("--renew", "--reuse-key", *also) == ISSUED, client.said
    assert client.certificate.public_key() == first.public_key()
    assert (client.folder / "key.pem").read_bytes() == key


@at("demo")
def test_a_renewal_that_is_refused_leaves_certificate_and_key(client: Client) -> None:
    assert client() == ISSUED, client.said
    before = {path: path.read_bytes() for path in client.folder.iterdir()}
    assert client("--renew") == REFUSED
    assert "too early" in client.said
    assert {path: path.read_bytes() for path in client.folder.iterdir()} == before


def test_there_is_nothing_to_renew_before_there_is_a_certificate(client: Client) -> None:
    assert client("--renew") == ERROR


# Approval


def _decide(client: Client, word: str) -> None:
    """Once the record knows what is held."""
    name = client.folder.name

    def held() -> list[dict[str, object]]:
        return listed(client.system, "--state", State.HELD, "--search", name)

    wait_until(held, 30, "the hold on record")
    done = command(word, name, "--note", "decided", "--config", str(client.system.config))
    assert done.returncode == 0, done.stdout


def _settled(client: Client, *options: str) -> int:
    """The status of the run that is no longer pending; each run asks once."""
    seen = [PENDING]

    def ended() -> bool:
        seen.append(client("--poll", "--poll-for", "0", *options))
        return seen[-1] != PENDING

    wait_until(ended, 30, "the end")
    return seen[-1]


@at("manual")
def test_what_is_pending_goes_on_with_the_key_that_was_kept(client: Client) -> None:
    assert client() == PENDING
    key = (client.folder / "key.pem").read_bytes()
    assert client.files() == {"key.pem"}
    assert client("--poll", "--poll-for", "0") == PENDING
    _decide(client, "approve")
    assert _settled(client) == ISSUED, client.said
    assert (client.folder / "key.pem").read_bytes() == key


@at("manual")
def test_what_is_denied_is_refused_with_the_note(client: Client) -> None:
    assert client() == PENDING
    _decide(client, "deny")
    assert _settled(client) == REFUSED
    assert "decided" in client.said
    assert "key.pem" not in client.files()


# Other operations


def test_a_certificate_is_fetched_by_its_serial(client: Client) -> None:
    assert client() == ISSUED, client.said
    wanted = client.certificate
    serial = f"{wanted.serial_number:x}"
    assert client("--get-cert", serial) == ISSUED, client.said
    fetched = (client.folder / f"{serial}.pem").read_bytes()
    assert x509.load_pem_x509_certificate(fetched) == wanted


def test_a_crl_is_fetched_with_and_without_a_certificate(client: Client) -> None:
    for enrolls in (False, True):
        assert not enrolls or client() == ISSUED
        assert client("--get-crl") == ISSUED, client.said
        crl = x509.load_pem_x509_crl((client.folder / "crl.pem").read_bytes())
        ca = x509.load_pem_x509_certificate(client.system.ca_file.read_bytes())
        assert crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]


@pytest.mark.parametrize("serial", ["4711", "ffff" * 8])
def test_an_unknown_serial_is_refused(client: Client, serial: str) -> None:
    assert client("--get-cert", serial) == REFUSED


@pytest.mark.parametrize("options", [("--get-cert", "xyz"), ("--next-ca",)])
def test_a_question_without_an_answer_is_an_error_in_one_sentence(
    client: Client, options: tuple[str, ...]
) -> None:
    assert client(*options) == ERROR
    assert client.said.count("scepstream enroll:") == 1
    assert client.files() == set()


def test_the_capabilities_are_shown(client: Client) -> None:
    assert client("--caps") == 0
    assert "RENEWAL" in client.said
    assert client.files() == set()


# How it ends


def test_a_refusal_is_3(client: Client) -> None:
    assert client(challenge="wrong") == REFUSED
    assert client.files() == set()


@pytest.mark.parametrize(
    "options", [("--cipher", "rot13"), ("--digest", "crc"), ("--transport", "x"), ("--key", "dsa")]
)
def test_what_it_does_not_know_is_an_error(client: Client, options: tuple[str, ...]) -> None:
    assert client(*options) == ERROR
    assert client.said.count("choose one of") == 1
    assert client.files() == set()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, but nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_server_that_is_away_is_5(tmp_path: Path, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/scep"
    done = command("enroll", url, "--cn", "x", "--challenge", "x", "--out", str(tmp_path / "x"))
    assert done.returncode == UNREACHABLE
    assert not (tmp_path / "x").exists()
