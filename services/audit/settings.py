"""The audit service's settings."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding

from services.audit.roles import Level
from services.audit.store.urls import read_url
from shared.bus.servers import Servers
from shared.bus.topology import recorded
from shared.config.fields import parse_duration
from shared.config.keys import read_certificates, read_event_signer, read_nkey
from shared.config.load import SettingsError, read_secret_file
from shared.config.sections import Configuration
from shared.log.envelope import EventSigner
from shared.log.shards import SOON_SECONDS, Epoch, all_shards, begun
from shared.runtime.endpoint import Endpoint, client_tls
from shared.runtime.process import now

_MIN_TOKEN: Final = 32
_MIN_SECRET: Final = 16


@dataclass(frozen=True)
class Oidc:
    """Sign-in by OIDC: the provider, this client, and the access level of each role.

    `roles_claim` is the claim that lists a user's roles. `tls` None means the system's CAs.
    """

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    redirect_uri: str
    roles_claim: str
    levels: Mapping[str, Level]
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class PageSettings:
    """Settings of the page: its public URL, and how long a session lasts (s)."""

    public_url: str | None
    session_seconds: float
    oidc: Oidc | None = None

    @property
    def secure(self) -> bool:
        """Return whether browsers reach the page over TLS."""
        return (self.public_url or "").startswith("https:")


@dataclass(frozen=True)
class ExpiryWebhook:
    """Where to post notices of certificates that expire, and how long before their end (s)."""

    endpoint: Endpoint
    before: tuple[int, ...]


@dataclass(frozen=True)
class Settings:
    """All settings of the audit service; `streams` are those that may hold events by now."""

    servers: Servers
    nkey_seed: str
    signer: EventSigner
    epochs: tuple[Epoch, ...]
    streams: tuple[str, ...]
    database_url: str
    batch: int
    page: PageSettings
    expiry_webhook: ExpiryWebhook | None = None


def read_settings(configuration: Configuration) -> Settings:
    """Read the audit service's settings.

    Raises `SettingsError`, which names what is wrong.
    """
    section = configuration.audit
    return Settings(
        servers=configuration.servers(),
        nkey_seed=read_nkey(configuration.path(section.nkey_path)),
        signer=read_event_signer(configuration.path(section.signing_key_path)),
        epochs=configuration.epochs(),
        streams=recorded(all_shards(begun(configuration.epochs(), now() + SOON_SECONDS))),
        database_url=database_url(configuration),
        batch=section.batch,
        page=PageSettings(section.public_url, section.session_ttl, _oidc(configuration)),
        expiry_webhook=_expiry_webhook(configuration),
    )


def _expiry_webhook(configuration: Configuration) -> ExpiryWebhook | None:
    section = configuration.audit
    url, secret = section.expiry_webhook_url, b""
    if url is None:
        return None
    if (path := section.expiry_webhook_secret_path) is not None:
        secret = read_secret_file(configuration.path(path)).strip(b"\r\n")
        if len(secret) < _MIN_SECRET:
            raise SettingsError(f"{path}: shorter than {_MIN_SECRET} bytes")
    ca = section.expiry_webhook_ca_path
    tls = client_tls(configuration, ca) if urlsplit(url).scheme == "https" else None
    endpoint = Endpoint(url, section.expiry_webhook_timeout, secret, tls=tls)
    return ExpiryWebhook(
        endpoint, tuple(int(parse_duration(t)) for t in section.expiry_webhook_before)
    )


def _oidc(configuration: Configuration) -> Oidc | None:
    section = configuration.audit
    if section.oidc_issuer is None:
        return None
    for name in ("public_url", "oidc_client_id"):
        if getattr(section, name) is None:
            raise SettingsError(f"audit.{name}: required by audit.oidc_issuer")
    secret = None
    if section.oidc_client_secret_path is not None:
        raw = read_secret_file(configuration.path(section.oidc_client_secret_path))
        secret = raw.decode("utf-8", "replace").strip()
    levels = dict.fromkeys(section.oidc_viewers, Level.VIEWER)
    levels |= dict.fromkeys(section.oidc_operators, Level.OPERATOR)
    levels |= dict.fromkeys(section.oidc_admins, Level.ADMIN)
    if not levels:
        raise SettingsError(
            "audit.oidc_viewers: nobody could sign in; name a role here, in oidc_operators"
            " or in oidc_admins"
        )
    return Oidc(
        section.oidc_issuer,
        section.oidc_client_id or "",
        secret,
        f"{section.public_url}/login/oidc/callback",
        section.oidc_roles_claim,
        levels,
        _tls(configuration),
    )


def _tls(configuration: Configuration) -> ssl.SSLContext | None:
    """Return a context that trusts the provider's configured CAs; None to use the system's."""
    path = configuration.audit.oidc_ca_path
    if path is None:
        return None
    roots = read_certificates(configuration.path(path))
    pem = "".join(root.public_bytes(Encoding.PEM).decode("ascii") for root in roots)
    return ssl.create_default_context(cadata=pem)


def admin_token(configuration: Configuration) -> str | None:
    """Return the first admin's token from its file; None if no file is configured.

    Only the service needs it; other commands do not read it.
    """
    path = configuration.audit.admin_token_path
    if path is None:
        return None
    token = read_secret_file(configuration.path(path)).decode("utf-8", "replace").strip()
    if len(token) < _MIN_TOKEN:
        raise SettingsError(f"{path}: shorter than {_MIN_TOKEN} characters")
    return token


def database_url(configuration: Configuration) -> str:
    """Return the database's URL; a relative SQLite path is relative to the configuration file."""
    try:
        url = read_url(configuration.audit.database_url)
    except SettingsError as error:
        raise SettingsError(f"audit.database_url: {error}") from None
    if url.get_backend_name() == "sqlite" and url.database:
        url = url.set(database=str(configuration.directory / url.database))
    return url.render_as_string(hide_password=False)
