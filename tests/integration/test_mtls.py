"""Whom the mTLS siblings of two profiles let in: each the clients of its own CA, and no others."""

import base64
import re
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cli.up.authority import pem
from cli.up.layout import write_private
from shared.config.keys import read_ca_key_file, read_certificates
from tests.integration.conftest import PROXY
from tests.support.prepared import tell_to_reload
from tests.support.requests import PKI_MESSAGE, Device, Endpoint, answer, certificate, logged
from tests.support.system import System, wait_until
from tests.support.tools import need

CAPS = "?operation=GetCACaps"
SITES = ("north", "south")


def client(system: System, site: str, *, days: int = 1) -> bytes:
    """A client's certificate by the CA of a site, and its key, in one PEM; `days` are left."""
    ca = read_certificates(system.data / "ca" / f"{site}.pem")[0]
    ca_key = read_ca_key_file(system.data / "ca" / f"{site}.key")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"a client of {site}")])
    end = datetime.fromtimestamp(time.time(), UTC) + timedelta(days=days)
    made = x509.CertificateBuilder(
        ca.subject,
        name,
        key.public_key(),
        x509.random_serial_number(),
        end - timedelta(days=30),
        end,
    ).sign(ca_key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM) + pem(key)


@pytest.fixture(scope="module")
def pairs(wide: System) -> dict[str, bytes]:
    return {site: client(wide, site) for site in SITES}


@pytest.fixture(scope="module")
def contexts(
    wide: System, pairs: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ssl.SSLContext]:
    """What a client of each site, and one without a certificate, connects with."""
    found = {"nobody": ssl.create_default_context(cafile=str(wide.ca_file))}
    for site, pair in pairs.items():
        path = tmp_path_factory.mktemp(site) / "pair.pem"
        path.write_bytes(pair)
        found[site] = ssl.create_default_context(cafile=str(wide.ca_file))
        found[site].load_cert_chain(path)
    return found


def request(
    url: str, tls: ssl.SSLContext, method: str = "GET", **options: object
) -> httpx.Response:
    with httpx.Client(verify=tls, trust_env=False, timeout=30) as http:
        return http.request(method, url, **options)  # type: ignore[arg-type]


def mtls_url(system: System, profile: str, gateway: int = 0) -> str:
    return f"{system.run['mtls_urls'][gateway]}/{profile}"


# The listener


@pytest.mark.parametrize(
    ("who", "profile", "status"),
    [
        ("north", "north", 200),
        ("south", "south", 200),
        ("north", "south", 401),
        ("south", "north", 401),
        ("nobody", "north", 401),
        ("north", "demo", 404),
        ("nobody", "demo", 404),
        ("north", "unknown", 404),
    ],
)
def test_a_sibling_takes_the_clients_of_its_own_ca_alone(
    wide: System, contexts: dict[str, ssl.SSLContext], who: str, profile: str, status: int
) -> None:
    for gateway in range(3):
        response = request(f"{mtls_url(wide, profile, gateway)}{CAPS}", contexts[who])
        assert response.status_code == status
        assert response.headers["content-type"] == "text/plain"


def test_a_device_enrolls_through_the_sibling_and_still_needs_its_challenge(
    wide: System, contexts: dict[str, ssl.SSLContext]
) -> None:
    north = Endpoint.of(wide, "north")
    for challenge, succeeds in ((north.challenge, True), ("wrong", False)):
        device = Device.new()
        message = device.enrollment(north, device.csr(challenge))
        response = request(
            f"{mtls_url(wide, 'north')}?operation=PKIOperation",
            contexts["north"],
            "POST",
            content=message.body,
            headers={"content-type": PKI_MESSAGE},
        )
        reply = answer(north, message, response)
        assert (reply.fail_info is None) == succeeds
        if succeeds:
            certificate(north, device, reply)


def test_a_pki_message_without_a_client_certificate_is_not_looked_at(
    wide: System, contexts: dict[str, ssl.SSLContext]
) -> None:
    response = request(
        f"{mtls_url(wide, 'north')}?operation=PKIOperation",
        contexts["nobody"],
        "POST",
        content=b"x",
    )
    assert (response.status_code, response.text) == (401, "client certificate required\n")


def test_a_client_certificate_past_its_end_does_not_come_in(wide: System, tmp_path: Path) -> None:
    path = tmp_path / "pair.pem"
    path.write_bytes(client(wide, "north", days=-1))
    tls = ssl.create_default_context(cafile=str(wide.ca_file))
    tls.load_cert_chain(path)
    with pytest.raises(httpx.TransportError):
        request(f"{mtls_url(wide, 'north')}{CAPS}", tls)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_only_the_mtls_listener_ever_asks_for_a_client_certificate(
    wide: System, version: str
) -> None:
    """The handshake itself, message by message."""
    asked = {}
    for kind in ("tls_urls", "mtls_urls"):
        address = urlsplit(wide.run[kind][0]).netloc
        command = [need("openssl", "openssl"), "s_client", "-connect", address, version, "-msg"]
        done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=30)
        assert b"ServerHello" in done.stdout
        asked[kind] = re.search(rb"\bCertificateRequest\b", done.stdout) is not None
    assert asked == {"tls_urls": False, "mtls_urls": True}


def test_the_sibling_is_closed_on_every_other_listener(
    wide: System, contexts: dict[str, ssl.SSLContext]
) -> None:
    for urls in (wide.run["urls"], wide.run["tls_urls"]):
        url = f"{urls[0]}-mtls/north{CAPS}"
        assert request(url, contexts["north"]).status_code == 401


# Behind a proxy


def by_proxy(system: System, address: str, header: str, profile: str = "north") -> int:
    """The status for a Client-Cert header that comes from this address."""
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(transport=transport, trust_env=False, timeout=30) as http:
        url = f"{system.run['scep_url']}-mtls/{profile}{CAPS}"
        return http.get(url, headers={"client-cert": header}).status_code


def header(pair: bytes) -> str:
    """As RFC 9440 writes a certificate."""
    der = x509.load_pem_x509_certificate(pair).public_bytes(Encoding.DER)
    return f":{base64.b64encode(der).decode()}:"


def test_a_trusted_proxy_s_word_counts_and_nobody_else_s(
    wide: System, pairs: dict[str, bytes]
) -> None:
    assert by_proxy(wide, PROXY, header(pairs["north"])) == 200
    for address in ("127.0.0.1", "127.0.0.8"):
        assert by_proxy(wide, address, header(pairs["north"])) == 401


def test_a_trusted_proxy_s_client_must_be_of_the_profile_s_ca_and_valid_now(
    wide: System, pairs: dict[str, bytes]
) -> None:
    assert by_proxy(wide, PROXY, header(pairs["south"])) == 401
    assert by_proxy(wide, PROXY, header(client(wide, "north", days=-1))) == 401
    assert by_proxy(wide, PROXY, header(client(wide, "north", days=40))) == 401
    assert by_proxy(wide, PROXY, header(pairs["north"]), "demo") == 404


@pytest.mark.parametrize(
    "value", ["", ":", "::", ":AAAA:", "rubbish", ":=:", ":" + "A" * 9000 + ":"]
)
def test_a_header_that_is_no_certificate_is_none(wide: System, value: str) -> None:
    assert by_proxy(wide, PROXY, value) == 401


def test_a_proxy_s_header_on_the_mtls_listener_replaces_no_certificate(
    wide: System, pairs: dict[str, bytes], contexts: dict[str, ssl.SSLContext]
) -> None:
    url = f"{mtls_url(wide, 'north')}{CAPS}"
    headers = {"client-cert": header(pairs["north"])}
    for who in ("south", "nobody"):
        assert request(url, contexts[who], headers=headers).status_code == 401


# Reload


def test_a_tls_pair_that_does_not_fit_keeps_the_one_that_serves(
    wide: System, contexts: dict[str, ssl.SSLContext]
) -> None:
    path = wide.data / "tls" / "server.pem"
    good = path.read_bytes()
    before = len(logged(wide, "reload_refused"))
    write_private(path, good[: good.index(b"-----BEGIN PRIVATE KEY")])
    try:
        tell_to_reload(wide, "gateway")
        wait_until(lambda: len(logged(wide, "reload_refused")) > before, 30, "the refusal")
    finally:
        write_private(path, good)
    assert "server.pem" in logged(wide, "reload_refused")[-1]["detail"]
    url = f"{wide.run['tls_urls'][0]}/demo{CAPS}"
    assert request(url, contexts["nobody"]).status_code == 200
