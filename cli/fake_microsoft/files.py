"""The files of the fake: CA, server certificate, credentials, configuration."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cli.fake_microsoft.challenge import Pair, Sealer
from cli.fake_microsoft.model import App
from cli.fake_microsoft.world import new_app
from cli.up.authority import make_ca, make_tls, pem
from cli.up.layout import write_private

TENANTS: Final = ("contoso", "fabrikam")
CONFIGURATION: Final = "intune.toml"
_DAY: Final = timedelta(days=1)
_YEAR: Final = timedelta(days=365)


@dataclass(frozen=True)
class TenantFiles:
    """A tenant as a client is configured for it."""

    name: str
    id: str
    client_id: str
    secret: str = field(repr=False)
    secret_path: Path
    cert_path: Path
    key_path: Path


def make_pair(name: str, now: float) -> Pair:
    """Return a self-signed certificate and its key."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.fromtimestamp(now, UTC) - _DAY
    certificate = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), start, start + _YEAR
    ).sign(key, hashes.SHA256())
    return Pair(certificate, key)


def make_sealer(now: float) -> Sealer:
    """Return new keys for challenges."""
    return Sealer(make_pair("fake Intune signing", now), make_pair("fake Intune encryption", now))


def write_tls(directory: Path, now: float) -> tuple[Path, Path]:
    """Make a CA and a server certificate; return the paths of the CA's and of the server's PEM."""
    ca = make_ca("ec:p256", now)
    ca_path, server_path = directory / "ca.pem", directory / "server.pem"
    write_private(server_path, make_tls(ca, ["127.0.0.1", "localhost"], now))
    ca_path.write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    return ca_path, server_path


def write_tenant(directory: Path, name: str, now: float) -> tuple[App, TenantFiles]:
    """Make a tenant and write its credentials."""
    secret, pair = secrets.token_urlsafe(30), make_pair(f"scepstream {name}", now)
    app = new_app(name, secret, pair.certificate.public_bytes(Encoding.DER))
    paths = [directory / f"{name}.{kind}" for kind in ("secret", "pem", "key")]
    files = TenantFiles(name, app.id, app.client_id, secret, *paths)
    write_private(files.secret_path, secret.encode())
    write_private(files.key_path, pem(pair.key))
    files.cert_path.write_bytes(pair.certificate.public_bytes(Encoding.PEM))
    return app, files


def configuration(tenants: Iterable[TenantFiles], url: str, ca_path: Path) -> str:
    """Return the configuration of both tenants as TOML: one with a secret, one a certificate."""
    return tomli_w.dumps({"intune": {each.name: _section(each, url, ca_path) for each in tenants}})


def _section(tenant: TenantFiles, url: str, ca_path: Path) -> dict[str, object]:
    credentials = {"client_secret_path": str(tenant.secret_path)}
    if tenant.name != TENANTS[0]:
        credentials = {
            "client_cert_path": str(tenant.cert_path), "client_key_path": str(tenant.key_path)
        }  # fmt: skip
    return {
        "tenant_id": tenant.id,
        "client_id": tenant.client_id,
        **credentials,
        "login_url": url,
        "graph_url": url,
        "resource_url": f"{url}intune/",
        "service_hosts": ["127.0.0.1"],
        "ca_path": str(ca_path),
    }
