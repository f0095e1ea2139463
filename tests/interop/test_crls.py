"""Complete CRLs and partitions in the eyes of openssl and strongSwan, through a running system."""

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.clients import Finished, run, told
from tests.issuers.building import free_port
from tests.support.holders import get_crl, revoke
from tests.support.prepared import configure, prepared
from tests.support.requests import Device, Endpoint, enroll, send
from tests.support.system import System, running, wait_until
from tests.support.tools import need

PARTITIONS = 4
RELEASED, HELD, REVOKED = "OK", "certificateHold", "superseded"
OPTIONS = {RELEASED: "removeFromCRL", HELD: HELD, REVOKED: REVOKED}
REASONS = {
    HELD: x509.ReasonFlags.certificate_hold,
    REVOKED: x509.ReasonFlags.superseded,
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose certificates name partitions at its own gateway."""
    layout, port = prepared(tmp_path_factory.mktemp("crls") / "data"), free_port()
    url = f"http://127.0.0.1:{port}/crl/local"
    configure(
        layout.config, "issuers.local", crl_partitions=[PARTITIONS, 2], crl_partition_urls=[url]
    )
    with running(layout.root, "--port", str(port)) as found:
        yield found


@dataclass(frozen=True)
class Held:
    """A certificate, the URL of its partition, and the files that programs read."""

    certificate: x509.Certificate
    url: str
    folder: Path

    def fetch(self, url: str) -> x509.CertificateRevocationList:
        """Write the CRL at a URL to crl.pem, once it has been published."""

        def published() -> httpx.Response | None:
            response = send("GET", url)
            return response if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE else None

        response = wait_until(published, 60, "a first CRL")
        assert (response.status_code, response.headers["content-type"]) == (
            HTTPStatus.OK,
            "application/pkix-crl",
        )
        found = x509.load_der_x509_crl(response.content)
        (self.folder / "crl.pem").write_bytes(found.public_bytes(Encoding.PEM))
        return found

    def openssl(self, *options: str) -> Finished:
        command = [need("openssl", "openssl"), "verify", "-x509_strict", "-crl_check"]
        return run([*command, "-CAfile", "ca.pem", *options, "cert.pem"], self.folder)

    def strongswan(self, *options: str) -> Finished:
        command = [need("pki", "strongswan-pki"), "--verify", "--in", "cert.pem"]
        return run([*command, "--cacert", "ca.pem", *options], self.folder)


@pytest.fixture
def held(system: System, tmp_path: Path) -> Held:
    certificate = enroll(Endpoint.of(system), Device.new())
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    (point,) = points
    assert point.full_name is not None
    (name,) = point.full_name
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "ca.pem").write_bytes(system.ca_file.read_bytes())
    return Held(certificate, name.value, tmp_path)


def complete(system: System) -> str:
    return f"{system.run['urls'][0].removesuffix('/scep')}/crl/local.crl"


def other_partition(held: Held) -> str:
    """The URL of another partition."""
    start, _, last = held.url.removesuffix(".crl").rpartition("-")
    return f"{start}-{(int(last) + 1) % PARTITIONS}.crl"


def is_valid(done: Finished) -> bool:
    """Whether a program accepts the certificate; anything but that and "revoked" is a failure."""
    if done.returncode == 0:
        assert "OK" in done.stdout or "trusted" in done.stdout, told(done)
        return True
    assert "revoked" in done.stdout + done.stderr, told(done)
    return False


def test_a_certificate_that_is_held_released_and_revoked_is_so_on_every_crl(
    system: System, held: Held
) -> None:
    """As openssl and strongSwan find it, and as devices get it by GetCRL."""
    serial, endpoint = held.certificate.serial_number, Endpoint.of(system)
    assert is_valid(held.openssl("-crl_download"))
    for status in (HELD, RELEASED, REVOKED):
        done = revoke(system, serial, "--reason", OPTIONS[status])
        assert done.returncode == 0, done.stdout + done.stderr
        for url in (complete(system), held.url):
            crl = held.fetch(url)
            is_released = status == RELEASED
            assert is_valid(held.openssl("-CRLfile", "crl.pem")) is is_released
            assert is_valid(held.strongswan("--crl", "crl.pem")) is is_released
            check_entry(crl, serial, status)
        check_entry(get_crl(endpoint, Device.new()), serial, status)
        assert is_valid(held.openssl("-crl_download")) is (status == RELEASED)
    assert get_crl(endpoint, Device.new()).public_bytes(Encoding.DER) == (
        send("GET", complete(system)).content
    )
    check_entry(held.fetch(other_partition(held)), serial, RELEASED)


def check_entry(crl: x509.CertificateRevocationList, serial: int, status: str) -> None:
    entry = crl.get_revoked_certificate_by_serial_number(serial)
    assert (entry is None) is (status == RELEASED)
    if entry is not None:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        assert reason is REASONS[status]


def test_openssl_does_not_take_another_partition_for_the_certificates_own(held: Held) -> None:
    held.fetch(other_partition(held))
    done = held.openssl("-CRLfile", "crl.pem")

    assert done.returncode != 0
    assert "unable to get certificate CRL" in done.stderr or "scope" in done.stderr, told(done)


def test_strongswan_fetches_the_partition_that_the_certificate_names(
    system: System, held: Held
) -> None:
    assert is_valid(held.strongswan("--online"))
    assert revoke(system, held.certificate.serial_number).returncode == 0
    assert not is_valid(held.strongswan("--online"))
