"""A connection to one tenant, read from the configuration: addresses, credentials, limits."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from services.validator.microsoft.clouds import CLOUDS
from services.validator.microsoft.credentials import (
    CertificateCredential,
    Credential,
    SecretCredential,
)
from shared.config.keys import check_pair, read_certificates, read_private_key
from shared.config.load import SettingsError, read_secret_file
from shared.config.sections import Configuration, IntuneSection
from shared.runtime.endpoint import client_tls

_SECRET: Final = re.compile(r"[ -~]{1,512}")
_MIN_BITS: Final = 2048


@dataclass(frozen=True)
class TenantConnection:
    """Everything that is needed to ask Microsoft about one tenant; see `IntuneSection`.

    URLs end in "/". `credentials` are in the order in which they are tried.
    """

    name: str
    tenant_id: str
    client_id: str
    credentials: tuple[Credential, ...] = field(repr=False)
    provider_name: str
    ca_configuration: str
    login_url: str
    graph_url: str
    resource_url: str
    service_hosts: tuple[str, ...]
    scep_api_version: str
    revocation_api_version: str
    tls: ssl.SSLContext = field(repr=False)
    cloud: str = "public"
    concurrency: int = 32
    budget: float = 25.0
    revocations: bool = True
    revocation_interval: float = 600.0

    @property
    def token_url(self) -> str:
        """Return where tokens are requested."""
        return f"{self.login_url}{self.tenant_id}/oauth2/v2.0/token"

    @property
    def graph_scope(self) -> str:
        """Return the scope of tokens for Graph."""
        return f"{self.graph_url}.default"

    @property
    def intune_scope(self) -> str:
        """Return the scope of tokens for Intune; the resource's own "/" makes it a double one."""
        return f"{self.resource_url}/.default"


def read_connections(configuration: Configuration) -> Mapping[str, TenantConnection]:
    """Read every connection; `SettingsError` names the file."""
    return {name: read_connection(configuration, name) for name in configuration.intune}


def read_connection(configuration: Configuration, name: str) -> TenantConnection:
    """Read a connection's files; `SettingsError` names the file."""
    section = configuration.intune[name]
    cloud = CLOUDS[section.cloud]
    return TenantConnection(
        name=name,
        tenant_id=section.tenant_id,
        client_id=section.client_id,
        credentials=tuple(_credentials(configuration, section)),
        provider_name=section.provider_name or f"scepstream/{version('scepstream')}",
        ca_configuration=section.ca_configuration or name,
        login_url=section.login_url or cloud.login_url,
        graph_url=section.graph_url or cloud.graph_url,
        resource_url=section.resource_url or cloud.resource_url,
        service_hosts=section.service_hosts or cloud.service_hosts,
        scep_api_version=section.scep_api_version,
        revocation_api_version=section.revocation_api_version,
        tls=client_tls(configuration, section.ca_path),
        cloud=section.cloud,
        concurrency=section.concurrency,
        budget=section.budget,
        revocations=section.revocations,
        revocation_interval=section.revocation_interval,
    )


def _credentials(configuration: Configuration, section: IntuneSection) -> list[Credential]:
    if section.client_secret_path:
        return [_secret(configuration.path(path)) for path in section.client_secret_path]
    pairs = zip(section.client_cert_path or (), section.client_key_path or (), strict=True)
    sha1 = section.thumbprint_algorithm == "sha1"
    return [
        _certificate(configuration.path(cert), configuration.path(key), sha1=sha1)
        for cert, key in pairs
    ]


def _secret(path: Path) -> SecretCredential:
    text = read_secret_file(path).decode("utf-8", "replace").strip()
    if not _SECRET.fullmatch(text):
        raise SettingsError(f"{path}: must hold the client secret: 1 to 512 ASCII characters")
    return SecretCredential(text)


def _certificate(cert_path: Path, key_path: Path, *, sha1: bool) -> CertificateCredential:
    key = read_private_key(key_path)
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < _MIN_BITS:
        raise SettingsError(f"{key_path}: must be an RSA key of {_MIN_BITS} bits or more")
    certificate = read_certificates(cert_path)[0]
    check_pair(certificate, key, cert_path, key_path)
    return CertificateCredential(certificate, key, sha1)
