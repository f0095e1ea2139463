"""A SCEP client for tests: it writes good and bad requests and believes no answer unchecked."""

import base64
import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.parser import text_string_to_metric_families

from services.audit.query.lookup import EnrollmentLine, recent
from services.audit.settings import database_url
from services.audit.store.engine import open_engine
from shared.config.load import load
from shared.scep.cacert import read_ca_certs
from shared.scep.certrep import CertRep, PkiStatus, read_certificates, read_reply
from shared.scep.envelope import read_envelope
from shared.scep.pkimessage import unwrap_content_key
from tests.support import messages as m
from tests.support.prepared import command
from tests.support.system import System, wait_until

PKI_MESSAGE = "application/x-pki-message"
TIMEOUT = 30.0


@dataclass(frozen=True)
class Endpoint:
    """A SCEP URL of a running system, its challenge, and whom GetCACert shows."""

    url: str
    challenge: str
    certificates: tuple[bytes, ...]
    metrics_url: str = ""

    @classmethod
    def of(cls, system: System, profile: str = "demo", gateway: int = 0) -> "Endpoint":
        run = system.run
        url = f"{run['urls'][gateway]}/{profile}"
        shown = send("GET", f"{url}?operation=GetCACert")
        assert shown.status_code == 200, shown.text
        return cls(
            url,
            system.challenge(profile),
            read_ca_certs(shown.content),
            run["metrics_urls"][f"gateway-{gateway}"],
        )

    @property
    def signing(self) -> bytes:
        """The RA certificate that signs every answer."""
        return self.certificates[0]

    @cached_property
    def encryption(self) -> x509.Certificate:
        """The RA certificate that requests are encrypted to."""
        return x509.load_der_x509_certificate(self.certificates[1])

    @cached_property
    def ca(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.certificates[2])

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    def get(self, operation: str, query: str = "") -> httpx.Response:
        return send("GET", f"{self.url}?operation={operation}{query}")

    def post(self, body: bytes) -> httpx.Response:
        headers = {"content-type": PKI_MESSAGE}
        return send("POST", f"{self.url}?operation=PKIOperation", content=body, headers=headers)


def send(method: str, url: str, **options: Any) -> httpx.Response:
    """One request on a connection of its own, past any proxy of the machine."""
    # It is plain HTTP: to load the machine's CA certificates each time would only take long.
    with httpx.Client(timeout=TIMEOUT, trust_env=False, verify=False) as client:
        return client.request(method, url, **options)


# Requests


@dataclass(frozen=True)
class Request:
    """The bytes of a request, and what its answer must repeat."""

    body: bytes
    transaction: bytes
    nonce: bytes

    def in_query(self) -> str:
        """As a GET carries it."""
        return quote(base64.b64encode(self.body), safe="")


def sealed(endpoint: Endpoint, plaintext: bytes, cipher: str = "aes256", **options: Any) -> bytes:
    """An EnvelopedData to the endpoint's RA; `recipient` replaces its RecipientInfo."""
    recipient = options.pop("recipient", None) or recipient_info(endpoint, cipher)
    return m.enveloped(plaintext, recipient, cipher=cipher, **options)


def recipient_info(
    endpoint: Endpoint, cipher: str = "aes256", encrypted_key: bytes | None = None
) -> bytes:
    """The RecipientInfo that names the endpoint's RA."""
    certificate = endpoint.encryption
    algorithm, padding = m.TRANSPORTS["pkcs1v15"]
    if encrypted_key is None:
        public_key = certificate.public_key()
        assert isinstance(public_key, rsa.RSAPublicKey)
        encrypted_key = public_key.encrypt(m.cipher_key(cipher), padding)
    named = m.tlv(m.SEQ, certificate.issuer.public_bytes(), m.integer(certificate.serial_number))
    return m.tlv(m.SEQ, m.integer(0), named, algorithm, m.tlv(4, encrypted_key))


@dataclass(frozen=True)
class Device:
    """A key, its self-signed certificate, and the transaction it uses."""

    identity: m.Identity
    transaction: bytes = field(default_factory=lambda: secrets.token_hex(16).encode())

    @classmethod
    def new(cls, name: str = "device", bits: int = 2048) -> "Device":
        key = rsa.generate_private_key(65537, bits)
        return cls(m.identity(name, secrets.randbits(64) | 1, key))

    @property
    def name(self) -> str:
        """A common name that no other device has."""
        return f"device-{self.transaction.decode()}"

    def csr(self, challenge: str, *attributes: bytes, **options: Any) -> bytes:
        """A CSR with a challenge, unless that is empty; `key` and others as in messages.csr."""
        key = options.pop("key", self.identity.key)
        options.setdefault("subject", m.name((m.COMMON_NAME, m.UTF8, self.name.encode())))
        password = m.challenge(m.PRINTABLE, challenge.encode())
        return m.csr(key, *([password] if challenge else []), *attributes, **options)

    def enrollment(
        self, endpoint: Endpoint, csr: bytes | None = None, cipher: str = "aes256", **options: Any
    ) -> Request:
        """A PKCSReq; `options` are those of `request`."""
        csr = self.csr(endpoint.challenge) if csr is None else csr
        return self.request(sealed(endpoint, csr, cipher), **options)

    def poll(self, endpoint: Endpoint) -> Request:
        """A CertPoll for the transaction."""
        payload = m.tlv(m.SEQ, endpoint.ca.subject.public_bytes(), m.DEVICE_NAME)
        return self.request(sealed(endpoint, payload), b"20")

    def request(
        self,
        content: bytes,
        message_type: bytes = b"19",
        nonce: bytes | None = None,
        digested: bytes | None = None,
        **options: Any,
    ) -> Request:
        """A pkiMessage around an envelope; `digested` is what its messageDigest is of."""
        nonce = secrets.token_bytes(16) if nonce is None else nonce
        digest = options.get("digest", "sha256")
        attributes = [
            *m.scep_attributes(
                m.tlv(m.PRINTABLE, message_type),
                m.tlv(m.PRINTABLE, self.transaction),
                m.tlv(4, nonce),
            ),
            *m.cms_attributes(content if digested is None else digested, digest),
        ]
        body = m.signed(content, self.identity, attributes, **options)
        return Request(body, self.transaction, nonce)


# Answers


def answer(
    endpoint: Endpoint, request: Request, response: "httpx.Response | RawResponse"
) -> CertRep:
    """The CertRep in a response: for this request, and signed by the RA."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == PKI_MESSAGE
    reply = read_reply(response.content)
    assert reply.signed.signer.der == endpoint.signing
    assert reply.transaction_id == request.transaction
    assert reply.recipient_nonce == request.nonce
    assert len(reply.sender_nonce) == 16
    assert reply.sender_nonce != request.nonce
    return reply


def ask(endpoint: Endpoint, request: Request) -> CertRep:
    """Post a request; its CertRep."""
    return answer(endpoint, request, endpoint.post(request.body))


def asked(endpoint: Endpoint, request: Request) -> CertRep:
    """The answer, once everything that it takes is there again."""

    def served() -> CertRep | None:
        try:
            response = endpoint.post(request.body)
        except (httpx.HTTPError, OSError):
            return None
        return None if response.status_code == 503 else answer(endpoint, request, response)

    return wait_until(served, 90, "an answer")


def ended(endpoint: Endpoint, request: Request) -> CertRep:
    """As `asked`, until it is not PENDING."""

    def found() -> CertRep | None:
        reply = asked(endpoint, request)
        return None if reply.status is PkiStatus.PENDING else reply

    return wait_until(found, 90, "an end")


def certificate(endpoint: Endpoint, device: Device, reply: CertRep) -> x509.Certificate:
    """The one certificate of a SUCCESS: the device's, by the endpoint's CA."""
    found = issued(device, reply)
    assert found.public_key() == device.identity.key.public_key()
    found.verify_directly_issued_by(endpoint.ca)
    return found


def issued(device: Device, reply: CertRep) -> x509.Certificate:
    """The one certificate of a SUCCESS that the device's key opens."""
    (der,) = read_certificates(opened(device, reply))
    return x509.load_der_x509_certificate(der)


def opened(device: Device, reply: CertRep) -> bytes:
    """The content of a SUCCESS to the device."""
    assert reply.status is PkiStatus.SUCCESS, (reply.status, reply.fail_info, reply.fail_info_text)
    envelope = read_envelope(reply.signed.content)
    return envelope.decrypt(unwrap_content_key(envelope, [device.identity.decryption], bytes(32)))


def enroll(endpoint: Endpoint, device: Device, **options: Any) -> x509.Certificate:
    """A whole enrollment."""
    return certificate(endpoint, device, ask(endpoint, device.enrollment(endpoint, **options)))


def der(found: x509.Certificate) -> bytes:
    return found.public_bytes(Encoding.DER)


# What the system tells of itself


def counted(metrics_url: str, metric: str, **labels: str) -> float:
    """The sum over a metric's samples that carry these labels."""
    text = send("GET", metrics_url).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )


def server_errors(metrics_url: str) -> float:
    """How often a gateway answered with a 5xx."""
    text = send("GET", metrics_url).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "scepstream_requests_total" and sample.labels["status"] >= "500"
    )


def logged(system: System, event: str, name: str = "gateway-0") -> list[dict[str, Any]]:
    """The lines about an event that a service has logged."""
    text = (system.data / "logs" / f"{name}.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def listed(system: System, *options: str) -> list[dict[str, Any]]:
    """What `audit list --json` says."""
    done = command("audit", "list", "--json", "--config", str(system.config), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def recorded(system: System, device: Device, state: str) -> dict[str, Any]:
    """The record's one line of a device's transaction, once it is in that state."""
    engine = open_engine(database_url(load(system.config)))

    def found() -> list[EnrollmentLine]:
        lines = recent(engine, 10, search=device.transaction.decode())
        return [line for line in lines if line.state == state]

    try:
        (line,) = wait_until(found, 30, f"{device.name} {state} on record")
    finally:
        engine.dispose()
    return asdict(line)


def shown(system: System, wanted: str) -> list[dict[str, Any]]:
    """What `audit show --json` says."""
    done = command("audit", "show", wanted, "--json", "--config", str(system.config))
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# Raw HTTP


@dataclass(frozen=True)
class RawResponse:
    """A response as it came: header names in lower case."""

    status_code: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()


class RawConnection:
    """A TCP connection for bytes that no HTTP client would send."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=TIMEOUT)
        self._file = self.socket.makefile("rb")

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def response(self) -> RawResponse:
        """The next response; the connection may hold more."""
        if not (status_line := self._file.readline()):
            raise ConnectionError("closed without a response")
        status = int(status_line.split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        return RawResponse(status, headers, self._file.read(int(headers.get("content-length", 0))))

    def ended(self) -> bool:
        """Whether the server has closed it."""
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@contextmanager
def connection(endpoint: Endpoint) -> Iterator[RawConnection]:
    """A raw connection to an endpoint's port."""
    opened = RawConnection(endpoint.address)
    try:
        yield opened
    finally:
        opened.close()
