"""A fake of AD CS web enrollment behind NTLM with TLS and EPA: German pages, pending requests.

NTLM authenticates connections, so no proxy can stand between.
"""

import datetime as dt
import ipaddress
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.adcs_auth import channel_binding
from tests.issuers.adcs import PASSWORD, USER, WRONG, connector
from tests.issuers.fake_adcs import DENIED, FakeAdcs, Ntlm
from tests.issuers.lab import Lab
from tests.issuers.orders import order
from tests.issuers.serving import serving
from tests.support import pki

TLS: Final = "tls.pem"


@dataclass
class Served:
    """A fake with its NTLM guard, and its address."""

    fake: FakeAdcs
    guard: Ntlm
    url: str


def make_tls(folder: Path) -> bytes:
    """Write a certificate for 127.0.0.1, tls.pem, and its key; the certificate as DER."""
    key = ec.generate_private_key(ec.SECP384R1())
    start = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    end = start + dt.timedelta(days=2)
    name = pki.name("web")
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, start, end)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA384())
    )
    pki.write_certificate(folder / TLS, made)
    pki.write_key(folder / "tls.key", key)
    return pki.der(made)


@contextmanager
def accounts(folder: Path) -> Iterator[None]:
    """The accounts of `spnego`'s server."""
    path = folder / "accounts"
    domain, name = USER.split("\\")
    path.write_text(f"{domain}:{name}:{PASSWORD}\n")
    with mock.patch.dict(os.environ, {"NTLM_USER_FILE": str(path)}):
        yield


@asynccontextmanager
async def served(folder: Path, fake: FakeAdcs, scheme: str = "NTLM") -> AsyncIterator[Served]:
    """Serve a fake over TLS with NTLM that demands the channel binding."""
    guard = Ntlm(fake.app(), channel_binding(make_tls(folder)), scheme)
    keys = {"ssl_certfile": str(folder / TLS), "ssl_keyfile": str(folder / "tls.key")}
    with accounts(folder):
        async with serving(guard, **keys) as port:
            yield Served(fake, guard, f"https://127.0.0.1:{port}")


@asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """See `Lab`; `folder` has a configuration, scepstream.toml."""
    async with served(folder, FakeAdcs(language="de", approval=True)) as web:
        ntlm = {"auth": "ntlm", "tls_ca_path": TLS}
        found = connector(folder, web.fake, web.url, **ntlm)
        denied = connector(folder, web.fake, web.url, WRONG, **ntlm)
        ca = web.fake.ca
        yield Lab(
            found, ca.everything, ca.is_revoked, refused=order(ca.certificate, DENIED),
            denied=denied, approve=web.fake.approve, pends=True, revokes=False,
            secrets=(PASSWORD, WRONG),
        )  # fmt: skip
        await found.close()
        await denied.close()
