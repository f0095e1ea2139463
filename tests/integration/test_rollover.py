"""From one CA to the next: shown, activated, and nobody is lost on the way."""

import hashlib
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.log.reasons import FAIL_INFO, Reason
from shared.scep.cacert import read_next_ca_certs
from shared.scep.certrep import PkiStatus, read_reply
from shared.scep.cms import read_der_or_ber
from shared.scep.errors import ScepError
from shared.scep.signed_data import read_signed_data
from tests.support.holders import (
    GET_CERT,
    enrolled,
    get_crl,
    query,
    renewal,
    renewed,
    revoke,
)
from tests.support.prepared import add_profiles, command, prepared, tell_to_reload
from tests.support.requests import (
    Device,
    Endpoint,
    ask,
    certificate,
    der,
    enroll,
    issued,
    logged,
    send,
)
from tests.support.system import System, running, wait_until
from tests.support.tools import need

GATEWAYS = 2
PROFILE = "anytime"


@dataclass
class Story:
    """A system that is rolled over once, with what was seen on the way."""

    system: System
    old: Endpoint
    holder: Device
    spare: Device
    asking: Device
    caps: list[str]
    shown: httpx.Response
    load: Counter[str]
    fetched: Path

    def now(self, gateway: int = 0) -> Endpoint:
        return Endpoint.of(self.system, PROFILE, gateway)


def operation(system: System, name: str, gateway: int = 0) -> httpx.Response:
    return send("GET", f"{system.run['urls'][gateway]}/{PROFILE}?operation={name}")


@contextmanager
def steady_load(endpoint: Endpoint, seen: Counter[str]) -> Iterator[None]:
    """Enrollments one after the other, by two devices that never ask for the CA again."""
    stop = threading.Event()
    keys = [Device.new().identity for _ in range(2)]

    def enroll_on(number: int) -> None:
        while not stop.is_set():
            device = Device(keys[number])
            response = endpoint.post(device.enrollment(endpoint).body)
            status = str(response.status_code)
            if response.status_code == 200:
                status = read_reply(response.content).status.name
            seen[status] += 1

    threads = [threading.Thread(target=enroll_on, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def reloaded(system: System, times: int) -> bool:
    """Whether every process that reloads has said so as often."""
    names = ["issuer-0", "validator-0", *(f"gateway-{i}" for i in range(GATEWAYS))]
    return all(len(logged(system, "reloaded", name)) >= times for name in names)


def everywhere(system: System, name: str, wanted: bytes) -> bool:
    """Whether every gateway's answer to an operation holds these bytes."""
    return all(wanted in operation(system, name, i).content for i in range(GATEWAYS))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    layout = prepared(tmp_path_factory.mktemp("rolled") / "data")
    add_profiles(layout, {PROFILE: {"renewal_window": "0s"}})
    data = str(layout.root)
    with running(layout.root, "--gateways", str(GATEWAYS)) as system:
        old = Endpoint.of(system, PROFILE)
        holder, spare, asking = enrolled(old), enrolled(old), enrolled(old)
        load = Counter[str]()
        caps = [operation(system, "GetCACaps").text]
        assert operation(system, "GetNextCACert").status_code == 404
        with steady_load(old, load):
            done = command("ca", "next", "--kind", "ec:p256", "--data", data)
            assert done.returncode == 0, done.stdout
            wait_until(lambda: everywhere(system, "GetCACaps", b"GetNextCACert"), 60, "the next CA")
            wait_until(lambda: reloaded(system, 1), 60, "its pin in every service")
            caps.append(operation(system, "GetCACaps").text)
            shown = operation(system, "GetNextCACert")
            fetched = layout.root.parent / "client"
            question = ("--next-ca", "--ca-file", str(system.ca_file), "--out", str(fetched))
            assert command("enroll", old.url, *question).returncode == 0
            assert (
                operation(system, "GetCACert").content == operation(system, "GetCACert", 1).content
            )
            assert Endpoint.of(system, PROFILE).certificates == old.certificates
            done = command("ca", "activate", "--data", data)
            assert done.returncode == 0, done.stdout
            (new,) = read_next_ca_certs(shown.content, old.certificates[0])
            wait_until(lambda: everywhere(system, "GetCACert", new), 60, "the new CA")
            # Two signals at once would be one reload.
            wait_until(lambda: reloaded(system, 2), 60, "the activation in every service")
            tell_to_reload(system)
            wait_until(lambda: reloaded(system, 3), 60, "three reloads")
        caps.append(operation(system, "GetCACaps").text)
        yield Story(system, old, holder, spare, asking, caps, shown, load, fetched)


def pin(ca: x509.Certificate) -> str:
    info = ca.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


# The next CA


def test_a_next_ca_is_promised_only_while_there_is_one(story: Story) -> None:
    assert ["GetNextCACert" in caps for caps in story.caps] == [False, True, False]
    assert operation(story.system, "GetNextCACert").status_code == 404


def test_the_next_ca_is_signed_for_by_the_ra_of_the_one_before(story: Story) -> None:
    assert story.shown.status_code == 200
    assert story.shown.headers["content-type"] == "application/x-x509-next-ca-cert"
    (der_of_next,) = read_next_ca_certs(story.shown.content, story.old.certificates[0])
    assert x509.load_der_x509_certificate(der_of_next) == story.now().ca


def test_the_ra_certificate_that_signs_for_the_next_ca_comes_with_its_ca(story: Story) -> None:
    signed = read_der_or_ber(story.shown.content, read_signed_data)
    assert signed.signer.der == story.old.certificates[0]
    assert signed.certificates == (story.old.certificates[0], story.old.certificates[2])


def test_openssl_reads_and_verifies_the_next_ca(story: Story, tmp_path: Path) -> None:
    openssl = need("openssl", "openssl")
    (tmp_path / "next.der").write_bytes(story.shown.content)
    (tmp_path / "ca.pem").write_bytes(story.old.ca.public_bytes(Encoding.PEM))
    verify = [openssl, "cms", "-verify", "-inform", "DER", "-in", "next.der", "-binary"]
    verify += ["-CAfile", "ca.pem", "-out", "certificates.der"]
    read = [openssl, "pkcs7", "-inform", "DER", "-in", "certificates.der", "-print_certs"]
    for step in (verify, [*read, "-out", "certificates.pem"]):
        done = subprocess.run(step, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    pems = (tmp_path / "certificates.pem").read_bytes()
    assert x509.load_pem_x509_certificates(pems) == [story.now().ca]


def test_our_client_fetches_the_next_ca(story: Story) -> None:
    pems = (story.fetched / "next-ca.pem").read_bytes()
    assert x509.load_pem_x509_certificates(pems) == [story.now().ca]


def test_the_ca_alone_did_not_sign_what_devices_get(story: Story) -> None:
    with pytest.raises(ScepError):
        read_next_ca_certs(story.shown.content, story.old.certificates[2])


def test_another_ca_does_not_vouch_for_the_next(story: Story) -> None:
    stranger = Device.new("CA").identity
    with pytest.raises(Exception, match=r"."):
        read_next_ca_certs(story.shown.content, stranger.der)


# Activated


def test_no_request_was_lost_on_the_way(story: Story) -> None:
    """PENDING is an answer: what came between two CAs is there at the next poll."""
    assert set(story.load) <= {PkiStatus.SUCCESS.name, PkiStatus.PENDING.name}
    assert story.load[PkiStatus.SUCCESS.name] > 10


def test_no_honest_event_was_called_forged_on_the_way(story: Story) -> None:
    names = ["issuer-0", "validator-0", *(f"gateway-{i}" for i in range(GATEWAYS))]
    assert [line for n in names for line in logged(story.system, "event_not_authentic", n)] == []
    assert story.load[PkiStatus.PENDING.name] == 0


@pytest.mark.parametrize("gateway", range(GATEWAYS))
def test_every_gateway_shows_the_new_ca_with_its_own_ra_certificates(
    story: Story, gateway: int
) -> None:
    endpoint = story.now(gateway)
    assert isinstance(endpoint.ca.public_key(), ec.EllipticCurvePublicKey)
    assert endpoint.ca != story.old.ca
    for ra in endpoint.certificates[:2]:
        x509.load_der_x509_certificate(ra).verify_directly_issued_by(endpoint.ca)
    assert set(endpoint.certificates).isdisjoint(story.old.certificates)
    certificate(endpoint, device := Device.new(), ask(endpoint, device.enrollment(endpoint)))


def test_a_device_that_kept_the_old_ra_certificates_enrolls_and_is_answered_under_them(
    story: Story,
) -> None:
    now, device = story.now(), Device.new()
    kept = Endpoint(now.url, now.challenge, (*story.old.certificates[:2], now.certificates[2]))
    enroll(kept, device)


def test_a_request_of_before_is_answered_with_its_certificate_of_before(story: Story) -> None:
    """A poll asks for the newest of its transaction: this device never renews."""
    poll = story.asking.poll(story.old)
    assert issued(story.asking, ask(story.old, poll)) == story.asking.identity.x509


def test_a_certificate_of_the_old_ca_renews_into_one_of_the_new(story: Story) -> None:
    now, key = story.now(), Device.new().identity.key
    reply = ask(now, renewal(now, story.holder, key))
    renewed(now, story.holder, key, reply).verify_directly_issued_by(now.ca)


def test_certificates_of_both_cas_are_fetched_by_their_serials(story: Story) -> None:
    now, device = story.now(), Device.new()
    for ca, wanted in (
        (story.old.ca, story.holder.identity.x509),
        (story.old.ca, story.old.ca),
        (now.ca, enroll(now, device)),
        (now.ca, now.ca),
    ):
        message = query(now, device, GET_CERT, wanted.serial_number, ca.subject.public_bytes())
        assert issued(device, ask(now, message)) == wanted


def test_each_ca_signs_the_crl_of_its_own_certificates(story: Story) -> None:
    now, device = story.now(), Device.new()
    root = story.system.run["scep_url"].removesuffix("/scep")
    old = story.spare
    new = enroll(now, device)
    for serial in (old.identity.x509.serial_number, new.serial_number):
        assert revoke(story.system, serial).returncode == 0
    for ca, there, elsewhere in (
        (story.old.ca, old.identity.x509, new),
        (now.ca, new, old.identity.x509),
    ):
        by_url = x509.load_der_x509_crl(send("GET", f"{root}/crl/local/{pin(ca)}.crl").content)
        by_message = get_crl(now, device, ca)
        assert by_url == by_message
        assert by_url.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
        assert by_url.get_revoked_certificate_by_serial_number(there.serial_number) is not None
        assert by_url.get_revoked_certificate_by_serial_number(elsewhere.serial_number) is None
    current = send("GET", f"{root}/crl/local.crl").content
    assert x509.load_der_x509_crl(current).issuer == now.ca.subject


def test_a_poll_names_either_ca(story: Story) -> None:
    now, device = story.now(), Device.new()
    mine = der(enroll(now, device))
    for endpoint in (now, Endpoint(now.url, "", story.old.certificates)):
        reply = ask(endpoint, device.poll(endpoint))  # signed by the RA that it was encrypted to
        assert der(certificate(now, device, reply)) == mine


# What is refused


def test_there_is_nothing_to_activate_twice(story: Story) -> None:
    before = story.system.config.read_text()
    done = command("ca", "activate", "--data", str(story.system.data))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert story.system.config.read_text() == before


@pytest.mark.parametrize("verb", ["next", "activate"])
def test_what_is_no_data_directory_is_refused_in_one_sentence(tmp_path: Path, verb: str) -> None:
    done = command("ca", verb, "--data", str(tmp_path))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["rsa:1024", "ec:p384", "dsa", "rsa:", "rsa:x"])
def test_a_next_ca_of_another_kind_is_refused_and_nothing_is_made(
    tmp_path: Path, kind: str
) -> None:
    layout = prepared(tmp_path / "data")
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    done = command("ca", "next", "--kind", kind, "--data", str(layout.root))
    assert done.returncode == 1
    assert {p: p.read_bytes() for p in layout.root.rglob("*") if p.is_file()} == before


def test_a_second_next_ca_is_refused(tmp_path: Path) -> None:
    layout = prepared(tmp_path / "data")
    first, second = (command("ca", "next", "--data", str(layout.root)) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 1)
    assert "after the next start" in first.stdout
    assert len(second.stderr.splitlines()) == 1


def test_a_certificate_of_a_ca_that_was_never_ours_renews_nothing(story: Story) -> None:
    now, forger, key = story.now(), Device.new("forger"), Device.new().identity.key
    assert ask(now, renewal(now, forger, key)).fail_info is FAIL_INFO[Reason.NOT_RENEWABLE]
