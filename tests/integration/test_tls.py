"""SCEP over TLS, and the mTLS sibling: whom each listener asks for what, and whom it lets in."""

import base64
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cli.toml import set_keys
from cli.up.firststart import first_start
from cli.up.layout import Layout, write_private
from shared.runtime.process import now
from tests.support.requests import Device, Endpoint, ask, certificate, enroll
from tests.support.system import System, running, wait_until
from tests.support.tools import need

CAPS = "?operation=GetCACaps"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """TLS and mTLS listeners; demo has the mTLS sibling, and 127.0.0.1 is a trusted proxy."""
    layout = Layout(tmp_path_factory.mktemp("secured") / "data")
    first_start(layout, "rsa:2048", None, 4222, now())
    bundle = {"mtls_enabled": True, "mtls_client_ca_trust_bundle_path": "ca/ca.pem"}
    text = set_keys(layout.config.read_text(), "profiles.demo", bundle)
    text = set_keys(text, "gateway", {"trusted_proxies": ["127.0.0.1"]})
    write_private(layout.config, text.encode())
    with running(layout.root, "--tls-port", "0", "--mtls-port", "0") as system:
        yield system


@pytest.fixture(scope="module")
def client(secured: System) -> tuple[Device, bytes]:
    """A device and its certificate as PEM, by the CA that the bundle holds."""
    device = Device.new()
    return device, enroll(Endpoint.of(secured), device).public_bytes(Encoding.PEM)


def context(secured: System, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    found = ssl.create_default_context(cafile=str(secured.ca_file))
    if version is not None:
        found.minimum_version = found.maximum_version = version
    return found


def get(url: str, tls: ssl.SSLContext, **options: object) -> httpx.Response:
    with httpx.Client(verify=tls, trust_env=False) as http:
        return http.get(url, **options)  # type: ignore[arg-type]


def with_certificate(secured: System, client: tuple[Device, bytes], folder: Path) -> ssl.SSLContext:
    device, pem = client
    pair = folder / "pair.pem"
    pair.write_bytes(pem + device.identity.key_pem)
    found = context(secured)
    found.load_cert_chain(pair)
    return found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_scep_is_served_over_both_versions_of_tls(secured: System, version: ssl.TLSVersion) -> None:
    answer = get(f"{secured.run['tls_urls'][0]}/demo{CAPS}", context(secured, version))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain"


def test_the_tls_listener_asks_for_no_client_certificate(secured: System) -> None:
    """Windows and macOS give up where it does."""
    address = secured.run["tls_urls"][0].removeprefix("https://").partition("/")[0]
    done = subprocess.run(
        [need("openssl", "openssl"), "s_client", "-connect", address],
        input=b"", capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert b"No client certificate CA names sent" in done.stdout


def test_a_device_enrolls_over_tls(secured: System) -> None:
    device, demo = Device.new(), Endpoint.of(secured)
    request = device.enrollment(demo)
    with httpx.Client(verify=context(secured), trust_env=False) as http:
        url = f"{secured.run['tls_urls'][0]}/demo?operation=PKIOperation"
        response = http.post(url, content=request.body)
    assert response.status_code == 200
    certificate(demo, device, ask(demo, request))


@pytest.mark.parametrize(("path", "status"), [("-mtls/demo", 401), ("-mtls/legacy", 404)])
def test_the_sibling_wants_a_certificate_and_exists_where_it_is_enabled(
    secured: System, path: str, status: int
) -> None:
    root = secured.run["mtls_urls"][0].removesuffix("-mtls")
    assert get(f"{root}{path}{CAPS}", context(secured)).status_code == status


def test_the_mtls_listener_serves_nothing_but_siblings(secured: System) -> None:
    root = secured.run["mtls_urls"][0].removesuffix("-mtls")
    assert get(f"{root}/demo{CAPS}", context(secured)).status_code == 404


def test_a_certificate_of_the_profiles_bundle_opens_the_sibling(
    secured: System, client: tuple[Device, bytes], tmp_path: Path
) -> None:
    tls = with_certificate(secured, client, tmp_path)
    assert get(f"{secured.run['mtls_urls'][0]}/demo{CAPS}", tls).status_code == 200


def test_behind_a_proxy_the_header_counts_as_the_certificate(
    secured: System, client: tuple[Device, bytes]
) -> None:
    body = client[1].decode().split("-----")[2]
    url = f"{secured.run['scep_url']}-mtls/demo{CAPS}"
    good = {"client-cert": f":{base64.b64encode(base64.b64decode(body)).decode()}:"}
    bad = [{}, {"client-cert": ":AAAA:"}, {"client-cert": "junk"}, {"client-cert": ":=:"}]
    plain = context(secured)
    assert get(url, plain, headers=good).status_code == 200
    for headers in bad:
        assert get(url, plain, headers=headers).status_code == 401


def test_a_tls_pair_is_replaced_without_a_restart(secured: System) -> None:
    from cli.up.authority import Authority, make_tls  # noqa: PLC0415 - of this test alone
    from shared.config.keys import read_ca_key_file, read_certificates  # noqa: PLC0415

    ca = Authority(
        read_certificates(secured.ca_file)[0], read_ca_key_file(secured.data / "ca" / "ca.key")
    )
    address = secured.run["tls_urls"][0].removeprefix("https://").partition("/")[0]
    host, port = address.rsplit(":", 1)
    before = ssl.get_server_certificate((host, int(port)))
    pair = make_tls(ca, ["127.0.0.1", "localhost"], now())
    write_private(secured.data / "tls" / "server.pem", pair)
    os.kill(secured.run["pids"]["gateway"][0], signal.SIGHUP)
    wait_until(lambda: ssl.get_server_certificate((host, int(port))) != before, 20, "the new pair")
