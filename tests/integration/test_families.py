"""`scepstream enroll --as` against a running system, over a proxy that keeps the request lines."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509

from tests.integration.conftest import LONG_CHALLENGE
from tests.support.prepared import command
from tests.support.system import System

FAMILIES = ("windows", "apple", "android")
AGENTS = {
    "windows": "Mozilla/4.0 (compatible; Win32; NDES client 10.0.",
    "apple": "CertificateService/1 CFNetwork/",
    "android": "Dalvik/2.1.0 (Linux; U; Android ",
}


@dataclass
class Line:
    """A request as it came: method, target, User-Agent."""

    method: str
    target: str
    user_agent: str


@dataclass
class Proxy:
    """A proxy in front of a gateway, and what it passed on."""

    origin: str
    lines: list[Line] = field(default_factory=list)


@contextmanager
def proxying(proxy: Proxy) -> Iterator[str]:
    """The address of a proxy for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            proxy.lines.append(Line(self.command, self.path, self.headers["user-agent"]))
            url = f"{proxy.origin}{self.path}"
            answer = httpx.request(self.command, url, content=body, timeout=60, trust_env=False)
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers["content-type"])
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815 - as the base class calls it

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            """Nothing: it is a test's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def enroll(system: System, url: str, out: Path, challenge: str, *options: str) -> None:
    """Enroll or renew; the certificate must be there."""
    done = command(
        "enroll", url, "--cn", out.name, "--challenge", challenge, "--out", str(out),
        "--ca-file", str(system.ca_file), *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert challenge not in done.stdout + done.stderr


def certificate(out: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((out / "cert.pem").read_bytes())


@pytest.mark.parametrize("profile", ["demo", "legacy"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_device_of_every_family_enrolls_and_renews(
    wide: System, tmp_path: Path, family: str, profile: str
) -> None:
    out = tmp_path / f"{family}-{tmp_path.name}"
    args = (wide, wide.url(profile), out, wide.challenge(profile), "--as", family)
    enroll(*args, "--san", "dns:a.example")
    first = certificate(out)
    enroll(*args, "--renew")
    second = certificate(out)

    assert (second.subject, second.public_key() == first.public_key()) == (first.subject, False)
    names = second.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == ["a.example"]


@pytest.mark.parametrize("also", [(), ("--get",)], ids=["post", "get"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_asks_in_its_order_with_a_challenge_of_16_kib(
    wide: System, tmp_path: Path, family: str, also: tuple[str, ...]
) -> None:
    assert len(LONG_CHALLENGE) == 16 * 1024
    url = urlsplit(wide.url("long"))
    proxy = Proxy(f"{url.scheme}://{url.netloc}")
    with proxying(proxy) as address:
        out = tmp_path / f"{family}-{tmp_path.name}"
        enroll(wide, f"{address}{url.path}", out, LONG_CHALLENGE, "--as", family, *also)

    path = f"{url.path}/pkiclient.exe" if family == "windows" else url.path
    message = "default" if family == "windows" else ""
    caps, ca, request = proxy.lines
    assert caps.target == f"{path}?operation=GetCACaps&message={message}"
    assert ca.target == f"{path}?operation=GetCACert&message={message}"
    assert request.target.startswith(f"{path}?operation=PKIOperation")
    assert request.method == ("GET" if also else "POST")
    assert all(line.user_agent.startswith(AGENTS[family]) for line in proxy.lines)
    sent = request.target.partition("&message=")[2]
    assert ("+" in sent, len(sent) > 16 * 1024) == (bool(also) and family == "apple", bool(also))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_option_overrides_what_a_family_does(wide: System, tmp_path: Path, family: str) -> None:
    out = tmp_path / f"{family}-{tmp_path.name}"
    options = ("--as", family, "--cipher", "aes256-gcm", "--transport", "oaep-sha256", "--ber")
    enroll(wide, wide.url("demo"), out, wide.challenge("demo"), *options)

    assert certificate(out).subject.rfc4514_string() == f"CN={out.name}"
