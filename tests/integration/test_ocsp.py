"""Online status: what `openssl ocsp` and other programs are answered by every gateway."""

import base64
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from asn1crypto import cms, core
from asn1crypto import ocsp as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.support.holders import revoke
from tests.support.requests import Device, Endpoint, RawConnection, answer, enroll, send
from tests.support.requests import certificate as leaf_of
from tests.support.system import System, wait_until
from tests.support.tools import need

RESPONSE = "application/ocsp-response"
NAMES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}


@pytest.fixture(scope="module")
def endpoint(wide: System) -> Endpoint:
    return Endpoint.of(wide, "anytime")


@pytest.fixture(scope="module")
def device() -> Device:
    return Device.new()


@pytest.fixture
def certificate(wide: System, endpoint: Endpoint, device: Device) -> x509.Certificate:
    """A new certificate whose response is there."""
    found = enroll(endpoint, Device(device.identity))
    url, body = responder(wide), request(endpoint, found)
    wait_until(lambda: status(send("POST", url, content=body).content) == "GOOD", 20, "a response")
    return found


def responder(system: System, gateway: int = 0, issuer: str = "local") -> str:
    return f"{system.run['urls'][gateway].removesuffix('/scep')}/ocsp/{issuer}"


def request(endpoint: Endpoint, certificate: x509.Certificate, name: str = "sha1") -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, endpoint.ca, NAMES[name])
    return builder.build().public_bytes(Encoding.DER)


def status(der: bytes) -> str:
    """The certificate's status, else that of the whole response."""
    found = ocsp.load_der_ocsp_response(der)
    if found.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return found.response_status.name
    return found.certificate_status.name


def openssl(
    folder: Path, url: str, ca: x509.Certificate, certificate: x509.Certificate, *options: str
) -> str:
    program = need("openssl", "openssl")
    for name, found in (("ca.pem", ca), ("leaf.pem", certificate)):
        (folder / name).write_bytes(found.public_bytes(Encoding.PEM))
    files = ["-issuer", "ca.pem", *options, "-cert", "leaf.pem", "-CAfile", "ca.pem"]
    done = subprocess.run(
        [program, "ocsp", *files, "-url", url],
        cwd=folder, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("options", [("-no_nonce",), (), ("-sha256", "-no_nonce")])
def test_openssl_is_told_that_a_certificate_is_good_and_later_that_it_is_not(
    wide: System,
    endpoint: Endpoint,
    certificate: x509.Certificate,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    for gateway in range(3):
        said = openssl(tmp_path, responder(wide, gateway), endpoint.ca, certificate, *options)
        assert "Response verify OK" in said
        assert "leaf.pem: good" in said

    assert revoke(wide, certificate.serial_number, "--reason", "superseded").returncode == 0
    for gateway in range(3):
        said = openssl(tmp_path, responder(wide, gateway), endpoint.ca, certificate, *options)
        assert "leaf.pem: revoked" in said
        assert "Reason: superseded" in said


def test_a_hold_is_told_and_so_is_its_end(
    wide: System, endpoint: Endpoint, certificate: x509.Certificate
) -> None:
    for reason, expected in (("certificateHold", "REVOKED"), ("removeFromCRL", "GOOD")):
        assert revoke(wide, certificate.serial_number, "--reason", reason).returncode == 0
        got = send("POST", responder(wide), content=request(endpoint, certificate))
        assert status(got.content) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encode", [lambda text: quote(text, safe=""), lambda text: text])
def test_it_is_asked_by_get_too_and_cached(
    wide: System, endpoint: Endpoint, certificate: x509.Certificate, name: str, encode: object
) -> None:
    assert callable(encode)
    text = encode(base64.b64encode(request(endpoint, certificate, name)).decode())
    got = send("GET", f"{responder(wide)}/{text}")

    assert (got.status_code, got.headers["content-type"]) == (200, RESPONSE)
    assert status(got.content) == "GOOD"
    assert got.headers["cache-control"] == ("public, max-age=3600, no-transform, must-revalidate")
    assert got.headers["last-modified"]
    tag = {"if-none-match": got.headers["etag"]}
    again = send("GET", f"{responder(wide)}/{text}", headers=tag)
    assert (again.status_code, again.content) == (304, b"")


def test_a_response_is_about_one_certificate_and_valid_for_days(
    wide: System, endpoint: Endpoint, certificate: x509.Certificate
) -> None:
    got = send("POST", responder(wide), content=request(endpoint, certificate))
    found = ocsp.load_der_ocsp_response(got.content)

    assert found.serial_number == certificate.serial_number
    assert found.next_update_utc is not None
    assert (found.next_update_utc - found.this_update_utc).days == 4
    assert abs(found.this_update_utc.timestamp() - time.time()) < 60
    (signer,) = found.certificates
    signer.verify_directly_issued_by(endpoint.ca)


def test_strangers_certificates_and_unknown_ones_are_unauthorized(
    wide: System, endpoint: Endpoint, certificate: x509.Certificate
) -> None:
    url, ca = responder(wide), endpoint.ca
    unknown = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        b"\x11" * 20, b"\x22" * 20, certificate.serial_number, NAMES["sha1"]
    )
    serial = ocsp.OCSPRequestBuilder().add_certificate(ca, ca, NAMES["sha1"])
    for builder in (unknown, serial):
        body = builder.build().public_bytes(Encoding.DER)
        got = send("POST", url, content=body)
        assert (got.status_code, status(got.content)) == (200, "UNAUTHORIZED")
        assert got.headers["cache-control"] == "no-store"
    missing = send("POST", responder(wide, issuer="other"), content=request(endpoint, certificate))
    assert missing.status_code == 404


@pytest.mark.parametrize("body", [b"", b"x", b"0\x00", b"\x30\x80\x00\x00", b"\xff" * 4000])
def test_what_is_no_request_is_malformed(wide: System, body: bytes) -> None:
    got = send("POST", responder(wide), content=body)
    assert (got.status_code, status(got.content)) == (200, "MALFORMED_REQUEST")
    text = quote(base64.b64encode(body).decode(), safe="")
    got = send("GET", f"{responder(wide)}/{text}")
    assert (got.status_code, status(got.content)) == (200, "MALFORMED_REQUEST")


def test_a_body_that_is_too_large_and_an_odd_method_are_refused(wide: System) -> None:
    assert send("POST", responder(wide), content=b"x" * 5000).status_code == 413
    assert send("PUT", responder(wide), content=b"x").status_code == 405


# On one connection: what was answered before is answered without an HTTP parser


def got(system: System, endpoint: Endpoint, certificate: x509.Certificate, *lines: str) -> bytes:
    """A GET as bytes."""
    text = quote(base64.b64encode(request(endpoint, certificate)).decode(), safe="")
    path = responder(system).partition("//")[2].partition("/")[2]
    return "\r\n".join((f"GET /{path}/{text} HTTP/1.1", "Host: x", *lines, "", "")).encode()


@pytest.fixture
def connection(endpoint: Endpoint) -> Iterator[RawConnection]:
    found = RawConnection(endpoint.address)
    yield found
    found.close()


def test_every_way_of_asking_again_has_the_same_answer(
    wide: System, endpoint: Endpoint, certificate: x509.Certificate, connection: RawConnection
) -> None:
    ask = got(wide, endpoint, certificate)
    body = request(endpoint, certificate)
    post = f"POST /ocsp/local HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answers = []
    for parts in (
        (ask,),
        (ask,),
        (ask[:40], ask[40:]),
        (post + body,),
        (post, body),
        (post + body,),
    ):
        for part in parts:
            connection.send(part)
        answers.append(connection.response())
    connection.send(ask + ask)  # pipelined
    answers += [connection.response(), connection.response()]

    (first, *others) = answers
    assert status(first.content) == "GOOD"
    names = ("content-type", "etag", "last-modified", "cache-control")
    for other in others:
        assert (other.status_code, other.content) == (200, first.content)
        assert {n: other.headers[n] for n in names} == {n: first.headers[n] for n in names}
        assert other.headers["date"]


def test_a_request_to_close_is_followed_and_a_conditional_one_is_304(
    wide: System, endpoint: Endpoint, certificate: x509.Certificate, connection: RawConnection
) -> None:
    connection.send(got(wide, endpoint, certificate))
    tag = connection.response().headers["etag"]
    connection.send(got(wide, endpoint, certificate, f"If-None-Match: {tag}"))
    assert connection.response().status_code == 304
    connection.send(got(wide, endpoint, certificate, "Connection: close"))
    assert connection.response().status_code == 200
    assert connection.ended()


# In the reply


def revocation_values(reply: bytes) -> list[bytes]:
    """The BasicOCSPResponses in a CertRep's unsigned attributes, as another library reads them."""
    (signer,) = cms.ContentInfo.load(reply)["content"]["signer_infos"]
    found = []
    for attribute in signer["unsigned_attrs"] or []:
        assert attribute["type"].dotted == "1.2.840.113549.1.9.16.2.24"
        (values,) = attribute["values"]
        sequence = core.Sequence.load(values.dump())
        (tagged,) = [sequence[index] for index in range(len(sequence))]
        found += [core.SequenceOf.load(tagged.contents, spec=asn1.BasicOCSPResponse)[0].dump()]
    return found


@pytest.mark.parametrize(("profile", "expected"), [("stapling", 1), ("anytime", 0)])
def test_a_reply_carries_a_response_where_the_profile_asks_for_it(
    wide: System, profile: str, expected: int
) -> None:
    endpoint, device = Endpoint.of(wide, profile), Device.new()
    asked = device.enrollment(endpoint)
    response = endpoint.post(asked.body)
    leaf = leaf_of(endpoint, device, answer(endpoint, asked, response))

    found = revocation_values(response.content)
    assert len(found) == expected
    for der in found:
        (single,) = asn1.BasicOCSPResponse.load(der)["tbs_response_data"]["responses"]
        assert single["cert_id"]["serial_number"].native == leaf.serial_number
        assert single["cert_status"].name == "good"
