"""Programs that look a certificate up by the OCSP URL in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.clients import Finished, run, told
from tests.issuers.building import free_port
from tests.support.holders import revoke
from tests.support.prepared import configure, prepared
from tests.support.requests import Device, Endpoint, enroll
from tests.support.system import System, running, wait_until
from tests.support.tools import need

AIA = x509.oid.AuthorityInformationAccessOID.OCSP


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose certificates name the responder at its own gateway, and no CRL."""
    layout, port = prepared(tmp_path_factory.mktemp("ocsp") / "data"), free_port()
    configure(layout.config, "issuers.local", ocsp_validity="4d")
    url = f"http://127.0.0.1:{port}/ocsp/local"
    configure(layout.config, "certificate_profiles.device", ocsp=[url])
    with running(layout.root, "--port", str(port)) as found:
        yield found


@pytest.fixture
def folder(system: System, tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(system.ca_file.read_bytes())
    return tmp_path


def strongswan(folder: Path) -> Finished:
    command = [need("pki", "strongswan-pki"), "--verify", "--in", "cert.pem"]
    return run([*command, "--cacert", "ca.pem", "--online"], folder)


def openssl(folder: Path, url: str) -> Finished:
    command = [need("openssl", "openssl"), "ocsp", "-issuer", "ca.pem", "-CAfile", "ca.pem"]
    return run([*command, "-cert", "cert.pem", "-url", url], folder)


def test_the_url_in_a_certificate_says_good_and_later_revoked(system: System, folder: Path) -> None:
    certificate = enroll(Endpoint.of(system), Device.new())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    information = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    (location,) = (each.access_location for each in information.value if each.access_method == AIA)

    wait_until(lambda: "cert.pem: good" in openssl(folder, location.value).stdout, 30, "a response")
    done = strongswan(folder)
    assert done.returncode == 0, told(done)
    assert "certificate status is good" in done.stdout + done.stderr, told(done)

    assert revoke(system, certificate.serial_number).returncode == 0
    assert "cert.pem: revoked" in openssl(folder, location.value).stdout
    done = strongswan(folder)
    assert done.returncode != 0
    assert "certificate was revoked" in done.stdout + done.stderr, told(done)
