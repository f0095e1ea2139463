"""A server in front of a plain one that speaks TLS and says who the client is. HTTP/1.1, loopback.

Fakes of CAs with mutual TLS stand behind it, as products stand behind a reverse proxy.
"""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.issuers.proxy import _body, _head
from tests.support import pki

SUBJECT: Final = "x-client-subject"


@dataclass
class TlsFiles:
    """A CA for TLS and files that it issued, in a folder; all names are relative to the folder."""

    folder: Path
    ca: str = "tls-ca.pem"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.root = pki.make_root(self.key, "TLS CA")
        pki.write_certificate(self.folder / self.ca, self.root)

    def issue(self, name: str) -> dict[str, str]:
        """Write a certificate for 127.0.0.1 with this common name; return a client's options."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = (
            x509.CertificateBuilder()
            .issuer_name(self.root.subject)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pki.write_certificate(self.folder / f"{name}.pem", made)
        file = self.folder / f"{name}.key"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.chmod(0o600)
        return {
            "tls_ca_path": self.ca,
            "tls_cert_path": f"{name}.pem",
            "tls_key_path": f"{name}.key",
        }

    def server(self) -> ssl.SSLContext:
        """A server's context that wants a client certificate of this CA."""
        self.issue("server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        context.load_verify_locations(self.folder / self.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@asynccontextmanager
async def fronted(target: int, files: TlsFiles) -> AsyncIterator[asyncio.Server]:
    """Serve TLS in front of a port of this machine; the subject goes on as `SUBJECT`."""
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_serve(reader, writer, target))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=files.server())
    try:
        yield server
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
    subject = _subject(writer.get_extra_info("ssl_object").getpeercert())
    line = f"{SUBJECT}: {subject}\r\n\r\n".encode()
    upstream = None
    try:
        with suppress(OSError, asyncio.IncompleteReadError):
            answers, upstream = await asyncio.open_connection("127.0.0.1", target)
            back = asyncio.create_task(_pump(answers, writer))
            while head := await _head(reader):
                body = await _body(reader, head)
                upstream.write(head.removesuffix(b"\r\n") + line + body)
                await upstream.drain()
            back.cancel()
    finally:
        for each in (upstream, writer):
            if each is not None:
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


def _subject(certificate: dict[str, Any]) -> str:
    """The subject, as `CN=name`."""
    names = [pair for rdn in certificate["subject"] for pair in rdn]
    return ",".join(f"CN={value}" for key, value in names if key == "commonName")


def port(server: asyncio.Server) -> int:
    """The port that a server listens on."""
    return int(server.sockets[0].getsockname()[1])
