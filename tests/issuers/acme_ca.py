"""Pebble, the ACME server for tests, from the Debian package `pebble`.

Pebble speaks TLS only, and so does the proxy in front of it here. Every challenge is valid there
(PEBBLE_VA_ALWAYS_VALID).
"""

import asyncio
import ipaddress
import json
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.issuer.connectors.acme_ca import AcmeConnector
from services.issuer.connectors.connector import Order
from shared.log.events.enrollment import TemplateExtension
from tests.issuers.building import build, free_port, secret_file
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.proxy import Proxy, _body, _head
from tests.support import pki
from tests.support.tools import need

KEY_ID: Final = "kid-of-the-lab"
HMAC: Final = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
WRONG_HMAC: Final = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"
BLOCKED: Final = "blocked.example"
BOTH: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)


@dataclass
class Pebble:
    """A server with a CA of its own; `port` is that of ACME, `management` that of its own API."""

    port: int
    management: int

    async def asked(self, path: str) -> httpx.Response:
        """What the management API answers."""
        async with httpx.AsyncClient(verify=_unverified(), trust_env=False) as client:
            return await client.get(f"https://127.0.0.1:{self.management}/{path}")

    async def ca(self) -> x509.Certificate:
        """The CA that signs, once the server runs."""
        while True:
            with suppress(httpx.TransportError):
                shown = await self.asked("intermediates/0")
                return x509.load_pem_x509_certificate(shown.content)
            await asyncio.sleep(0.05)

    async def is_revoked(self, serial: str) -> bool:
        """Whether a certificate is revoked; `serial` is the hex of the INTEGER's contents."""
        found = await self.asked(f"cert-status-by-serial/{int(serial, 16):x}")
        return bool(found.json()["Status"] == "Revoked")


def _tls_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    name = pki.name("Pebble's TLS")
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 4711, pki.START, pki.END)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[Pebble]:
    """Run a server; `environment` changes how it behaves."""
    program = need("pebble", "pebble")
    key = ec.generate_private_key(ec.SECP256R1())
    pki.write_key(folder / "pebble.key", key)
    pki.write_certificate(folder / "pebble.pem", _tls_certificate(key))
    pebble = Pebble(free_port(), free_port())
    settings = {
        "listenAddress": f"127.0.0.1:{pebble.port}",
        "managementListenAddress": f"127.0.0.1:{pebble.management}",
        "certificate": str(folder / "pebble.pem"),
        "privateKey": str(folder / "pebble.key"),
        "httpPort": 5002, "tlsPort": 5001, "ocspResponderURL": "",
        "externalAccountBindingRequired": True,
        "externalAccountMACKeys": {KEY_ID: HMAC},
        "domainBlocklist": [BLOCKED],
    }  # fmt: skip
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    home = {
        "PATH": os.environ["PATH"], "PEBBLE_VA_ALWAYS_VALID": "1", "PEBBLE_VA_NOSLEEP": "1",
        "PEBBLE_WFE_NONCEREJECT": "5", "PEBBLE_WFE_ORDERS_PER_PAGE": "1000", **environment,
    }  # fmt: skip
    with (folder / "pebble.log").open("wb") as log:
        command = [program, "-config", str(folder / "pebble.json")]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=home)
        try:
            yield pebble
        finally:
            process.terminate()
            process.wait(30)


class TlsProxy(Proxy):
    """The proxy, which speaks TLS to both sides."""

    async def _passed(self, call: bytes) -> bytes:
        tls = _unverified()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target, ssl=tls)
        try:
            writer.write(call)
            head = await _head(reader)
            return head + await _body(reader, head)
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def fronted(port: int, folder: Path) -> AsyncIterator[Proxy]:
    """Run the proxy in front of Pebble."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pebble.pem", folder / "pebble.key")
    proxy = TlsProxy(port, r"^POST /order-plz")
    proxy.server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0, ssl=context)
    proxy.port = proxy.server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        await proxy.stop()


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connector(
    folder: Path, ca: x509.Certificate, url: str, hmac: str = HMAC, **options: Any
) -> AcmeConnector:
    """The connector with an account key of its own."""
    name = f"account-{time.monotonic_ns()}.key"
    pki.write_key(folder / name, ec.generate_private_key(ec.SECP256R1()))
    values = {
        "url": f"{url}/dir", "tls_ca_path": "pebble.pem", "account_key_path": name,
        "eab_key_id": KEY_ID, "eab_hmac_path": secret_file(folder, f"{name}.hmac", hmac),
        "agree_to_terms": True, "answer_challenges": True,
    }  # fmt: skip
    made = build(folder, "acme", ca, values | options)
    assert isinstance(made, AcmeConnector)
    return made


class AcmeLab(Lab):
    """Orders with the usages that Pebble puts into every certificate."""

    def order(self) -> Order:
        return pebble_order(self.ca)


def pebble_order(ca: x509.Certificate, name: str = "", **changes: Any) -> Order:
    """An order for serverAuth and clientAuth."""
    made = order(ca, name, **changes)
    both = TemplateExtension(oid="2.5.29.37", critical=False, value=BOTH.public_bytes())
    extensions = tuple(both if e.oid == both.oid else e for e in made.template.extensions)
    return order_with(made, extensions=extensions)


def order_with(made: Order, **changes: Any) -> Order:
    """An order with another template."""
    return replace(made, template=msgspec.structs.replace(made.template, **changes))


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    with running(folder) as pebble:
        ca = await pebble.ca()
        async with fronted(pebble.port, folder) as proxy:
            url = f"https://127.0.0.1:{proxy.port}"
            found = connector(folder, ca, url)
            denied = connector(folder, ca, url, WRONG_HMAC)

            async def made() -> list[bytes]:
                """By the account's list of orders (RFC 8555 7.1.2.1), which Pebble has."""
                account = found.account
                await account.http.close()  # spoiled answers leave connections behind
                listed = (await account.call(await account.register())).json()["orders"]
                ders = []
                for place in (await account.call(listed)).json()["orders"]:
                    shown = (await account.call(place)).json()
                    if shown["status"] == "valid":
                        chain = (await account.call(shown["certificate"])).content
                        ders.append(x509.load_pem_x509_certificate(chain))
                return [der.public_bytes(Encoding.DER) for der in ders]

            yield AcmeLab(
                found, made, pebble.is_revoked, proxy, refused=pebble_order(ca, BLOCKED),
                denied=denied, pends=True, secrets=(HMAC, WRONG_HMAC),
            )  # fmt: skip
            await found.close()
            await denied.close()
