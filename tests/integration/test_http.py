"""SCEP's HTTP: routes, operations, encodings, limits, and what is served where."""

import base64
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from cryptography import x509

from shared.scep.certrep import PkiStatus
from tests.support import messages as m
from tests.support.requests import (
    Device,
    Endpoint,
    RawResponse,
    Request,
    answer,
    ask,
    certificate,
    connection,
    counted,
    logged,
    recorded,
    send,
    server_errors,
    shown,
)
from tests.support.system import System, wait_until

MODERN = {
    "AES",
    "POSTPKIOperation",
    "Renewal",
    "SCEPStandard",
    "SHA-256",
    "SHA-384",
    "SHA-512",
}
BODY_LIMIT = 64 * 1024
REQUEST_LINE = 64 * 1024
RA_USAGES = [
    x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.1"),  # Certificate Request Agent
    x509.ExtendedKeyUsageOID.EMAIL_PROTECTION,
]
LISTENING = "0A"
SUFFIXES = (
    "",
    "/",
    "/pkiclient.exe",
    "/PKIClient.EXE",
    "/pkiclient.exe/",
    "/pkiclient.exe/pkiclient.exe",
    "/cgi-bin/pkiclient.exe",
    "/CGI-bin/PkiClient.exe/",
    "/cgi-bin/pkiclient.exe/pkiclient.exe",
    "/certsrv/mscep/mscep.dll",
    "/CertSrv/MSCEP/mscep.DLL",
    "/certsrv/mscep/mscep.dll/",
    "/certsrv/mscep/mscep.dll/pkiclient.exe",
)


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


@pytest.fixture
def device(identity: m.Identity) -> Device:
    return Device(identity)


def root_of(endpoint: Endpoint) -> str:
    host, port = endpoint.address
    return f"http://{host}:{port}"


def raw(endpoint: Endpoint, request: bytes) -> RawResponse:
    with connection(endpoint) as opened:
        opened.send(request)
        return opened.response()


def raw_get(endpoint: Endpoint, query: str) -> RawResponse:
    """A GET whose query nothing on the way rewrites."""
    return raw(endpoint, f"GET {endpoint.path}?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def post_head(endpoint: Endpoint, *lines: str, version: str = "1.1") -> bytes:
    request = f"POST {endpoint.path}?operation=PKIOperation HTTP/{version}"
    return "\r\n".join((request, *lines, "", "")).encode()


def is_success(endpoint: Endpoint, device: Device, request: Request, response: object) -> bool:
    reply = answer(endpoint, request, response)  # type: ignore[arg-type]
    return certificate(endpoint, device, reply) is not None


# Capabilities and CA certificates


def test_capabilities_of_a_modern_profile_leave_out_all_that_is_weak(demo: Endpoint) -> None:
    response = demo.get("GetCACaps")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain"
    assert len(response.content) < 1024
    assert response.content.endswith(b"\n")
    keywords = response.content.decode("ascii").removesuffix("\n").split("\n")
    assert sorted(keywords) == sorted(MODERN)


def test_capabilities_of_a_legacy_profile_add_only_the_weak_ones(legacy: Endpoint) -> None:
    response = legacy.get("GetCACaps")
    assert response.headers["content-type"] == "text/plain"
    keywords = response.content.decode("ascii").removesuffix("\n").split("\n")
    assert sorted(keywords) == sorted(MODERN | {"DES3", "SHA-1"})


def test_a_next_ca_is_not_promised_while_there_is_none(demo: Endpoint, legacy: Endpoint) -> None:
    for endpoint in (demo, legacy):
        assert "GetNextCACert" not in endpoint.get("GetCACaps").text


def test_ca_certificates_are_ra_signing_then_ra_encryption_then_the_issuing_ca(
    demo: Endpoint, system: System
) -> None:
    response = demo.get("GetCACert")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-x509-ca-ra-cert"
    signing, encryption, ca = map(x509.load_der_x509_certificate, demo.certificates)
    assert ca == x509.load_pem_x509_certificate(system.ca_file.read_bytes())
    usages = []
    for ra in (signing, encryption):
        ra.verify_directly_issued_by(ca)
        usage = ra.extensions.get_extension_for_class(x509.KeyUsage).value
        usages.append((usage.digital_signature, usage.key_encipherment))
        extended = ra.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(extended) == RA_USAGES
    assert usages == [(True, False), (False, True)]


@pytest.mark.parametrize("operation", ["GetCACert", "GetCACaps", "GetNextCACert"])
@pytest.mark.parametrize(
    "message", ["", "&message", "&message=", "&message=0", "&message=CAIdentifier", "&message=%ff%"]
)
def test_the_message_of_a_get_operation_selects_nothing(
    demo: Endpoint, operation: str, message: str
) -> None:
    plain = demo.get(operation)
    response = raw_get(demo, f"operation={operation}{message}")
    assert (response.status_code, response.content) == (plain.status_code, plain.content)
    assert response.headers["content-type"] == plain.headers["content-type"]


def test_there_is_no_next_ca_certificate(demo: Endpoint) -> None:
    response = demo.get("GetNextCACert")
    assert response.status_code == 404
    assert response.headers["content-type"] == "text/plain"


# Operations and routes


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "query",
    ["operation=GetNothing<script>", "operation=", "operation", "", "message=x", "xoperation=1"],
)
def test_an_unknown_or_missing_operation_is_a_400_that_reflects_nothing(
    demo: Endpoint, method: str, query: str
) -> None:
    response = send(method, f"{demo.url}?{query}", content=b"<script>")
    assert response.status_code == 400
    assert response.headers["content-type"] == "text/plain"
    assert response.content == send("GET", demo.url).content
    assert b"script" not in response.content


@pytest.mark.parametrize("operation", ["getcacaps", "GETCACAPS", "GetCaCaps"])
def test_operations_are_known_in_any_case(demo: Endpoint, operation: str) -> None:
    assert demo.get(operation).content == demo.get("GetCACaps").content


@pytest.mark.parametrize(
    "path", ["/scep/nobody", "/scep/nobody/pkiclient.exe", "/scep/demo/more", "/", "/other", "/sce"]
)
def test_an_unknown_profile_is_a_404_that_reflects_nothing(demo: Endpoint, path: str) -> None:
    response = send("GET", f"{root_of(demo)}{path}?operation=GetCACaps")
    assert response.status_code == 404
    assert response.headers["content-type"] == "text/plain"
    assert b"nobody" not in response.content


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whatever_clients_append_to_a_profile_is_passed_over(legacy: Endpoint, suffix: str) -> None:
    response = send("GET", f"{legacy.url}{suffix}?operation=GetCACaps")
    assert response.status_code == 200
    assert b"DES3" in response.content


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_default_profile_stands_at_scep_itself(demo: Endpoint, suffix: str) -> None:
    response = send("GET", f"{root_of(demo)}/scep{suffix}?operation=GetCACert")
    assert response.status_code == 200
    assert response.content == demo.get("GetCACert").content


@pytest.mark.parametrize(
    "path",
    [
        "/certsrv/mscep/mscep.dll",
        "/CertSrv/mscep/MSCEP.dll",
        "/certsrv/mscep/mscep.dll/",
        "/certsrv/mscep/mscep.dll/pkiclient.exe",
    ],
)
def test_the_path_of_ndes_is_the_default_profile(demo: Endpoint, device: Device, path: str) -> None:
    request = device.enrollment(demo)
    url = f"{root_of(demo)}{path}?operation=PKIOperation"
    assert is_success(demo, device, request, send("POST", url, content=request.body))


@pytest.mark.parametrize(
    "path", ["/scep/demo", "/scep/demo/", "/scep/demo/pkiclient.exe/", "/scep"]
)
def test_nothing_redirects(demo: Endpoint, path: str) -> None:
    for method in ("GET", "POST"):
        response = send(method, f"{root_of(demo)}{path}?operation=GetCACaps")
        assert (response.status_code, response.history) == (200, [])


# PKIOperation by GET


def _padded(demo: Endpoint, device: Device) -> Request:
    """A request whose base64 needs padding and holds both letters that URLs change."""
    csr = device.csr(demo.challenge)
    for size in range(16, 64):
        found = device.enrollment(demo, csr, nonce=secrets.token_bytes(size))
        text = base64.b64encode(found.body)
        if text.endswith(b"=") and b"+" in text and b"/" in text:
            return found
    raise AssertionError("no such request came up")


def _lines(text: str, ending: str) -> str:
    return ending.join(text[i : i + 64] for i in range(0, len(text), 64)) + ending


SPELLINGS = {
    "percent-encoded": lambda text: quote(text, safe=""),
    "with + and / as they are": lambda text: text,
    "with + turned into a space": lambda text: text.replace("+", "%20"),
    "base64url": lambda text: text.translate(str.maketrans("+/", "-_")),
    "base64url without padding": lambda text: text.translate(str.maketrans("+/", "-_", "=")),
    "without padding": lambda text: text.rstrip("="),
    "in lines of 64 ended by LF": lambda text: _lines(text, "%0A"),
    "in lines of 64 ended by CRLF": lambda text: _lines(text, "%0D%0A"),
    "with a tab": lambda text: f"%09{text}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_get_takes_base64_as_clients_spell_it(
    demo: Endpoint, device: Device, spelling: str
) -> None:
    request = _padded(demo, device)
    text = SPELLINGS[spelling](base64.b64encode(request.body).decode())
    response = raw_get(demo, f"operation=PKIOperation&message={text}")
    assert is_success(demo, device, request, response)


def test_the_parameters_of_a_get_may_come_in_any_order(demo: Endpoint, device: Device) -> None:
    request = device.enrollment(demo)
    response = raw_get(demo, f"message={request.in_query()}&x=1&operation=PKIOperation")
    assert is_success(demo, device, request, response)


@pytest.mark.parametrize("text", ["!!!!", "AAAA*AAA", "A", "AAAA%00", "AA=A"])
def test_a_get_whose_message_is_not_base64_is_a_400(demo: Endpoint, text: str) -> None:
    response = raw_get(demo, f"operation=PKIOperation&message={text}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "text/plain"
    assert text not in response.text


def test_a_request_line_of_64_kib_is_accepted(demo: Endpoint, device: Device) -> None:
    request = device.enrollment(demo)
    start = f"GET {demo.path}?operation=PKIOperation&message={request.in_query()}&junk="
    end = " HTTP/1.1\r\n"
    line = start + "j" * (REQUEST_LINE - len(start) - len(end)) + end
    assert len(line) == REQUEST_LINE
    assert is_success(demo, device, request, raw(demo, f"{line}Host: x\r\n\r\n".encode()))


def test_a_message_that_fills_the_request_line_is_accepted(demo: Endpoint, device: Device) -> None:
    junk = m.attribute("1.3.6.1.4.1.99999.1", m.tlv(m.UTF8, b"j" * 44_000))
    request = device.enrollment(demo, device.csr(demo.challenge, junk))
    query = f"operation=PKIOperation&message={base64.urlsafe_b64encode(request.body).decode()}"
    assert 60_000 < len(query) < REQUEST_LINE
    assert is_success(demo, device, request, raw_get(demo, query))


# PKIOperation by POST


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/octet-stream",
        "application/x-pki-message",
        "application/pkcs7-mime",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; charset=utf-8",
        "no type at all",
    ],
)
def test_a_post_is_read_raw_whatever_its_type_says(
    demo: Endpoint, device: Device, content_type: str | None
) -> None:
    request = device.enrollment(demo)
    headers = {"content-type": content_type} if content_type else {}
    url = f"{demo.url}?operation=PKIOperation"
    response = send("POST", url, content=request.body, headers=headers)
    assert is_success(demo, device, request, response)


def test_a_post_may_come_in_chunks(demo: Endpoint, device: Device) -> None:
    request = device.enrollment(demo)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(request.body), 500):
            yield request.body[start : start + 500]

    response = send("POST", f"{demo.url}?operation=PKIOperation", content=chunks())
    assert is_success(demo, device, request, response)


def test_line_ends_after_the_message_are_passed_over(demo: Endpoint, device: Device) -> None:
    request = device.enrollment(demo)
    response = demo.post(request.body + b"\r\n")
    assert is_success(demo, device, request, response)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_empty_message_is_a_400(demo: Endpoint, method: str) -> None:
    for query in ("operation=PKIOperation", "operation=PKIOperation&message="):
        response = send(method, f"{demo.url}?{query}")
        assert response.status_code == 400
        assert response.headers["content-type"] == "text/plain"


# Limits


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_a_413(demo: Endpoint) -> None:
    assert demo.post(b"x" * BODY_LIMIT).status_code == 400
    assert demo.post(b"x" * (BODY_LIMIT + 1)).status_code == 413


def test_a_body_declared_too_large_is_refused_before_it_is_sent(demo: Endpoint) -> None:
    with connection(demo) as opened:
        opened.send(post_head(demo, "Host: x", f"Content-Length: {BODY_LIMIT + 1}"))
        response = opened.response()
        assert response.status_code == 413
        assert response.headers["content-type"] == "text/plain"
        assert opened.ended()


def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_large(demo: Endpoint) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    with connection(demo) as opened:
        opened.send(post_head(demo, "Host: x", "Transfer-Encoding: chunked"))
        opened.send(chunk * (BODY_LIMIT // 0x4000 + 1))  # the last chunk never comes
        response = opened.response()
        assert response.status_code == 413
        assert opened.ended()


def test_a_request_line_beyond_the_limit_is_refused(demo: Endpoint) -> None:
    response = raw_get(demo, f"operation=GetCACaps&junk={'j' * 80_000}")
    assert response.status_code in {400, 414}
    assert "jjjj" not in response.text
    assert demo.get("GetCACaps").status_code == 200


ENDLESS = {
    "request line": b"GET /scep/demo?operation=GetCACaps&junk=",
    "header": b"GET /scep/demo?operation=GetCACaps HTTP/1.1\r\nHost: x\r\nX: ",
    "trailer": (
        b"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: x\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: "
    ),
}


@pytest.mark.parametrize("place", ENDLESS)
def test_what_never_ends_is_cut_off_before_it_fills_the_memory(demo: Endpoint, place: str) -> None:
    with connection(demo) as opened:
        opened.send(ENDLESS[place])
        with pytest.raises(OSError):  # noqa: PT012 - any of the writes, or reading after them
            for _ in range(64):
                opened.send(b"j" * 65536)
            opened.send(b"\r\n\r\n")
            opened.response()
    assert demo.get("GetCACaps").status_code == 200


def test_an_upload_that_breaks_off_is_no_error_of_ours(system: System, demo: Endpoint) -> None:
    def broken_off() -> float:
        name = "scepstream_refused_total"
        return counted(demo.metrics_url, name, profile="demo", reason="broken_off")

    before = broken_off()
    errors = server_errors(demo.metrics_url)
    failures = len(logged(system, "request_failed"))
    with connection(demo) as opened:
        opened.send(post_head(demo, "Host: x", "Content-Length: 1000"), b"x" * 500)
    wait_until(lambda: broken_off() == before + 1, 10, "the upload being given up")
    assert server_errors(demo.metrics_url) == errors
    assert len(logged(system, "request_failed")) == failures


# Connections


def test_http_1_0_without_a_host_enrolls(demo: Endpoint, device: Device) -> None:
    request = device.enrollment(demo)
    with connection(demo) as opened:
        head = post_head(demo, f"Content-Length: {len(request.body)}", version="1.0")
        opened.send(head, request.body)
        assert is_success(demo, device, request, opened.response())
        assert opened.ended()


def test_http_1_0_without_a_host_gets_the_capabilities(demo: Endpoint) -> None:
    query = f"{demo.path}?operation=GetCACaps"
    response = raw(demo, f"GET {query} HTTP/1.0\r\n\r\n".encode())
    assert (response.status_code, response.content) == (200, demo.get("GetCACaps").content)


def test_http_1_1_without_a_host_is_served_too(demo: Endpoint) -> None:
    query = f"{demo.path}?operation=GetCACaps"
    response = raw(demo, f"GET {query} HTTP/1.1\r\n\r\n".encode())
    assert response.status_code == 200


def test_one_connection_serves_a_whole_enrollment(demo: Endpoint, device: Device) -> None:
    request = device.enrollment(demo)
    with connection(demo) as opened:
        for operation in ("GetCACaps", "GetCACert"):
            query = f"{demo.path}?operation={operation}"
            opened.send(f"GET {query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert opened.response().content == demo.get(operation).content
        opened.send(post_head(demo, "Host: x", f"Content-Length: {len(request.body)}"))
        opened.send(request.body)
        assert is_success(demo, device, request, opened.response())


def test_two_pipelined_requests_are_answered_in_their_order(demo: Endpoint, device: Device) -> None:
    request = device.enrollment(demo)
    with connection(demo) as opened:
        opened.send(
            post_head(demo, "Host: x", f"Content-Length: {len(request.body)}"),
            request.body,
            f"GET {demo.path}?operation=GetCACaps HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        )
        assert is_success(demo, device, request, opened.response())
        assert opened.response().content == demo.get("GetCACaps").content


@pytest.mark.parametrize("request_line", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\0" * 64])
def test_what_is_not_http_gets_no_internal_word(demo: Endpoint, request_line: bytes) -> None:
    with connection(demo) as opened:
        opened.send(request_line, b"\r\n\r\n")
        response = opened.response()
        assert response.status_code == 400
        assert b"Traceback" not in response.content
        assert "server" not in response.headers
    assert demo.get("GetCACaps").status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(demo: Endpoint, method: str) -> None:
    assert send(method, f"{demo.url}?operation=GetCACaps").status_code == 405


# What is served where


def test_nobody_can_name_another_client_address(
    system: System, demo: Endpoint, device: Device
) -> None:
    request = device.enrollment(demo)
    headers = {
        "x-forwarded-for": "203.0.113.7",
        "x-real-ip": "203.0.113.7",
        "forwarded": "for=203.0.113.7",
    }
    url = f"{demo.url}?operation=PKIOperation"
    response = send("POST", url, content=request.body, headers=headers)
    assert is_success(demo, device, request, response)
    line = recorded(system, device, "issued")
    requested = shown(system, line["enrollment"])[0]
    assert (requested["type"], requested["client_address"]) == ("EnrollmentRequested", "127.0.0.1")
    assert "203.0.113.7" not in str(requested)


def test_health_and_readiness_are_told_on_the_scep_port_and_on_every_operations_port(
    system: System, demo: Endpoint
) -> None:
    roots = [root_of(demo), system.run["admin_url"]]
    roots += [url.removesuffix("/metrics") for url in system.run["metrics_urls"].values()]
    for root in roots:
        assert send("GET", f"{root}/healthz").status_code == 200
        ready = send("GET", f"{root}/readyz")
        assert (ready.status_code, ready.text) == (200, "ready\n")


def test_metrics_are_served_on_the_operations_ports_alone(system: System, demo: Endpoint) -> None:
    run = system.run
    assert set(run["metrics_urls"]) == {"gateway-0", "validator-0", "issuer-0", "audit-0"}
    for url in (*run["metrics_urls"].values(), f"{run['admin_url']}/metrics"):
        response = send("GET", url)
        assert response.status_code == 200
        assert "scepstream_" in response.text
    for path in ("/metrics", "/metrics/", "/scep/metrics", "/scep/demo/metrics"):
        response = send("GET", f"{root_of(demo)}{path}")
        assert response.status_code == 404
        assert "scepstream" not in response.text


def test_scep_is_not_served_on_the_operations_ports(system: System, demo: Endpoint) -> None:
    for url in system.run["metrics_urls"].values():
        root = url.removesuffix("/metrics")
        assert send("GET", f"{root}{demo.path}?operation=GetCACaps").status_code == 404


def test_no_framework_pages_are_served(demo: Endpoint) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        response = send("GET", f"{root_of(demo)}{path}")
        assert response.status_code == 404
        assert response.headers["content-type"] == "text/plain"


def test_every_operation_is_counted_by_its_status(demo: Endpoint) -> None:
    def count(**labels: str) -> float:
        return counted(demo.metrics_url, "scepstream_requests_total", profile="demo", **labels)

    before = count(operation="GetCACaps", status="200"), count(operation="", status="400")
    demo.get("GetCACaps")
    demo.get("Nothing")
    after = count(operation="GetCACaps", status="200"), count(operation="", status="400")
    assert after == (before[0] + 1, before[1] + 1)


def _inodes(pid: int) -> set[str]:
    """The sockets of a process, which may close one of its files while they are read."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed: it does not listen
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found


def _bound(inodes: set[str]) -> dict[str, set[str]]:
    """The local addresses, in the kernel's hex, on which these sockets listen."""
    found: dict[str, set[str]] = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (table.startswith("udp") or fields[3] == LISTENING):
                found.setdefault(table, set()).add(fields[1])
    return found


def test_nothing_listens_beyond_the_loopback_address(system: System) -> None:
    pids = system.run["pids"]
    every = [pids["supervisor"], pids["nats"]]
    every += [pid for role in ("gateway", "validator", "issuer", "audit") for pid in pids[role]]
    bound = _bound(set().union(*map(_inodes, every)))
    assert set(bound) == {"tcp"}
    hosts = {address.partition(":")[0] for address in bound["tcp"]}
    assert hosts == {"0100007F"}
    ports = {int(address.partition(":")[2], 16) for address in bound["tcp"]}
    told = [*system.run["urls"], system.run["admin_url"], *system.run["metrics_urls"].values()]
    assert {urlsplit(url).port for url in told} < ports


def test_a_poll_by_get_is_answered_like_any_other(demo: Endpoint, device: Device) -> None:
    assert ask(demo, device.enrollment(demo)).status is PkiStatus.SUCCESS
    poll = device.poll(demo)
    response = raw_get(demo, f"operation=PKIOperation&message={poll.in_query()}")
    assert is_success(demo, device, poll, response)


@pytest.mark.parametrize("operation", ["GetCACaps", "GetCACert"])
def test_head_tells_the_length_and_sends_no_body(demo: Endpoint, operation: str) -> None:
    whole = demo.get(operation)
    head = send("HEAD", f"{demo.url}?operation={operation}")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(whole.content)


def test_head_enrolls_nobody(demo: Endpoint) -> None:
    request = Device.new().enrollment(demo)
    url = f"{demo.url}?operation=PKIOperation&message={request.in_query()}"
    refused = send("HEAD", url)
    assert refused.status_code == 405
    assert refused.headers["allow"] == "GET, POST"
