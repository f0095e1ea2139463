"""Operators' services on 127.0.0.1: real sockets, real TLS, and the worst of manners."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import pki

YES: Final = b'{"allow": true}'


@dataclass(frozen=True)
class Posted:
    """A request as the service got it; header names are lower-cased."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


Answer = Callable[[Posted, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Service:
    """What was asked, and the answers; `say` gives the bytes, `answer` can do worse."""

    say: bytes = field(default_factory=lambda: http(200, YES))
    answer: Answer | None = None
    posted: list[Posted] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"
    active: int = 0
    most: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            posted = await _read(reader, writer)
            self.posted.append(posted)
            self.active += 1
            self.most = max(self.most, self.active)
            try:
                await self._answer(posted, writer)
            finally:
                self.active -= 1
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client went away, which some of them must
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def _answer(self, posted: Posted, writer: asyncio.StreamWriter) -> None:
        if self.answer is not None:
            await self.answer(posted, writer)
            return
        writer.write(self.say)
        await writer.drain()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Posted:
    first_byte = await reader.readexactly(1)
    if not first_byte.isalpha():
        raise ConnectionError("not HTTP")
    head = (first_byte + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    peer = writer.get_extra_info("peercert") or {}
    names = [value for rdn in peer.get("subject", ()) for _, value in rdn]
    return Posted(method, path, headers, body, ", ".join(names))


@asynccontextmanager
async def serving(service: Service, tls: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
    """The service on a free port, until the block ends; whoever still waits is cut off."""
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(service.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    service.port = server.sockets[0].getsockname()[1]
    service.scheme = "https" if tls else "http"
    try:
        yield service
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# TLS


@dataclass(frozen=True)
class Papers:
    """A private CA, what it gave the service, and what it gave the client, as PEM files."""

    directory: Path
    key: ec.EllipticCurvePrivateKey

    @property
    def ca(self) -> Path:
        return pki.write_certificate(self.directory / "hook-ca.pem", pki.make_root(self.key))

    def pair(self, name: str, *, host: str = "127.0.0.1", days: int = 30) -> tuple[Path, Path]:
        """(certificate, key) of someone; valid until so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        now = dt.datetime.now(dt.UTC)
        made = (
            x509.CertificateBuilder(
                pki.name("Test CA"), pki.name(name), key.public_key(),
                x509.random_serial_number(),
                now - dt.timedelta(days=60), now + dt.timedelta(days=days),
            )
            .add_extension(address, critical=False)
            .sign(self.key, hashes.SHA256())
        )  # fmt: skip
        return (
            pki.write_certificate(self.directory / f"{name}.pem", made),
            pki.write_key(self.directory / f"{name}.key", key),
        )

    def server(self, *, clients: bool = False, **pair: Any) -> ssl.SSLContext:
        """TLS as the service speaks it; with `clients` it wants a certificate of this CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.pair("hook", **pair))
        if clients:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
