"""What the configuration may hold: every table and key, with types, limits and defaults."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from shared.bus.servers import Servers
from shared.bus.topology import Quota
from shared.config.fields import (
    BusUrls,
    Duration,
    ExtendedKeyUsages,
    Issuer,
    Names,
    NetworkNames,
    Origin,
    PathId,
    Paths,
    Section,
    Size,
    Token,
    is_token_uri,
)
from shared.config.profiles import CertificateProfileSection, ProfileSection
from shared.log.shards import Epoch

_GIB: Final = 2**30


class BusSection(Section):
    """Where nats-server is."""

    url: BusUrls
    """nats-server, as nats://HOST:PORT; of a cluster a list of its nodes, any of which will do."""


class EpochSection(Section):
    """A shard map and when (Unix seconds) it takes effect."""

    effective_at: float = 0.0
    """Unix seconds from which this map holds."""
    shards: Annotated[tuple[Token, ...], Field(min_length=1)] = ("0",)
    """Shard names; transactions are spread over them by hash."""
    pinned: dict[str, Token] = Field(default_factory=dict)
    """Fleet (by default a profile's own name) to shard, for those that must stay on one."""


class LogSection(Section):
    """The event log: its shard maps, its replicas."""

    epochs: tuple[EpochSection, ...] = (EpochSection(),)
    """Shard maps, past and planned."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream: 3 in a cluster."""
    sync_interval: Annotated[str, Field(pattern=r"^(always|\d+(ms|s))$")] = "100ms"
    """How often `up`'s nats-server forces events to the disk; "always": before each answer."""
    retry_window: Duration = 86400.0
    """How long repeated requests find the shards of an earlier epoch; polls always do."""
    max_bytes_enrollments: Size = 16 * _GIB
    """Largest size of each shard's stream of enrollments; from 80 % on gateways answer 503."""
    max_bytes_certificates: Size = 4 * _GIB
    """Largest size of the index of certificates."""
    max_bytes_crls: Size = 2 * _GIB
    """Largest size of all CRLs of the last 90 days."""
    max_bytes_commands: Size = 2 * _GIB
    """Largest size of operators' orders, checkpoints and what is answered to them."""
    max_bytes_shared: Size = _GIB
    """Largest size of each stream that replicas share: replay records, windows, heartbeats."""
    max_bytes_dead_letters: Size = _GIB
    """Largest size of the dead letters."""


class TrustSection(Section):
    """Public keys that services trust: never taken from the bus."""

    validator_keys: Paths
    """Ed25519 public keys of the validators, PEM."""
    issuer_keys: Paths
    """Ed25519 public keys of the issuers, PEM."""
    audit_keys: Paths
    """Ed25519 public keys of the audit service, PEM."""
    sealing_key: Path
    """X25519 public key to which gateways seal content keys, PEM."""


class TracingSection(Section):
    """OpenTelemetry traces of every service; wants the extra `tracing`."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[!-?A-~]+$", max_length=255)] | None = None
    """Where OTLP over HTTP goes, as http(s)://HOST:PORT/v1/traces [nothing is traced]."""
    sample_ratio: float = Field(default=1.0, ge=0.0, le=1.0)
    """Which part of all requests is traced."""


class GatewaySection(Section):
    """The HTTP edge."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    default_profile: str | None = None
    """The profile that /scep without a name serves."""
    body_limit: int = Field(default=256 * 1024, ge=4096, le=512 * 1024)
    """Largest message in bytes on any profile; each has its own `message_limit` within it."""
    max_in_flight: int = Field(default=2048, ge=1)
    """Requests in work at once, all sources together."""
    max_in_flight_per_source: int = Field(default=1024, ge=1)
    """Requests in work at once from one client address."""
    max_wait: Annotated[Duration, Field(gt=0)] = 1.5
    """How long a profile's requests may wait under load; what would wait longer gets 503."""
    rate_per_source: float = Field(default=100.0, ge=0.0)
    """PKIOperations a second from one address (IPv6: /64), else 503; 0: any number."""
    burst_per_source: int = Field(default=1000, ge=1)
    """PKIOperations that may come from it at once."""
    max_connections_per_source: int = Field(default=1024, ge=1)
    """Connections from one address (IPv6: /64); beyond it the longest silent of them is closed."""
    max_unfinished_per_source: int = Field(default=256, ge=1)
    """Requests from one address whose head or body is under way; beyond it as above."""
    failure_floor: Duration = 0.05
    """When the one answer to every decryption failure leaves."""
    trusted_proxies: NetworkNames = ()
    """Proxies whose X-Forwarded-For and Client-Cert are trusted: addresses and networks (CIDR)."""
    tls_cert_path: Path | None = None
    """Certificate (chain) of the TLS and mTLS listeners, PEM."""
    tls_key_path: Path | None = None
    """Its key, PEM, mode 0600."""


class ValidatorSection(Section):
    """The decider."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    signing_key_path: Path
    """Ed25519 key that signs this role's events, PEM, mode 0600."""
    opening_key_path: Paths
    """X25519 keys that open sealed content keys, PEM, mode 0600."""
    verdict_ttl: Duration = 86400.0
    """How long the issuer may act on an approval."""
    concurrency: int = Field(default=64, ge=1, le=1024)
    """Messages in work at once."""


class IssuerSection(Section):
    """The signer."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    signing_key_path: Path
    """Ed25519 key that signs this role's events, PEM, mode 0600."""
    concurrency: int = Field(default=64, ge=1, le=1024)
    """Messages in work at once."""


class AuditSection(Section):
    """The keeper of the read model, and the page of operators."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    signing_key_path: Path
    """Ed25519 key that signs operators' decisions and orders, PEM, mode 0600."""
    database_url: str
    """sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME. Parameters of libpq in the URL
    (`?connect_timeout=10`) take precedence over the built-in timeouts."""
    admin_token_path: Path | None = None
    """File of the first admin's token, mode 0600 [made at the first start, and printed once]."""
    batch: int = Field(default=1024, ge=1, le=4096)
    """Events in one transaction at most."""
    public_url: Origin | None = None
    """Where operators reach the page, http(s)://HOST[:PORT]; with https its cookie wants TLS."""
    session_ttl: Duration = 12 * 3600.0
    """How long a login at the page is good."""
    oidc_issuer: Issuer | None = None
    """OpenID Connect provider whose users may sign in at the page; wants `public_url` [tokens]."""
    oidc_client_id: str | None = None
    """This page's client there; its redirect URI is PUBLIC_URL/login/oidc/callback."""
    oidc_client_secret_path: Path | None = None
    """File of the client's secret, mode 0600 [none: a public client, PKCE alone]."""
    oidc_ca_path: Path | None = None
    """The CAs of the provider's TLS certificate, PEM [the system's]."""
    oidc_roles_claim: str = "roles"
    """The ID token's claim that holds a user's roles, a string or a list; nested: a.b."""
    oidc_viewers: Names = ()
    """Roles of who may look."""
    oidc_operators: Names = ()
    """Roles of who may run commands."""
    oidc_admins: Names = ()
    """Roles of admins."""


class AnyIssuerSection(Section):
    """What every issuer has: its CAs, and the ceilings that no verdict exceeds."""

    kind: str
    """The connector."""
    ca_cert_path: Paths
    """The CA certificate, PEM, the chain above it may follow; then those of previous CAs."""
    chain_path: Path | None = None
    """Certificates above the CA, PEM."""
    max_ttl: Duration = 2 * 365 * 86400.0
    """No certificate lives longer, whatever the verdict says."""
    max_backdate: Duration = 3600.0
    """No certificate begins longer before its request, whatever the verdict says."""
    extended_key_usages: ExtendedKeyUsages = (
        "clientAuth",
        "serverAuth",
        "emailProtection",
    )
    """No others are signed."""


class LocalIssuerSection(AnyIssuerSection):
    """A CA whose key is in a file or a PKCS#11 token."""

    kind: Literal["local"] = "local"
    """The connector."""
    ca_key_path: Paths
    """Their keys in the same order, RSA or P-256, PEM, mode 0600."""
    next_ca_cert_path: Path | None = None
    """The CA certificate to come, PEM: what GetNextCACert shows."""
    next_ca_key_path: Path | None = None
    """Its key."""
    crl_validity: Duration = 7 * 86400.0
    """From a CRL's thisUpdate to its nextUpdate; it is renewed at half of it, and on change."""
    secret_path: Path
    """Secret for serial numbers, 32 bytes or more, mode 0600; the same on all replicas."""


class ConnectorSection(AnyIssuerSection):
    """A CA behind a connector of an installed package."""

    kind: Token
    """The connector's name (`scepstream.issuers`)."""
    lease: Annotated[Duration, Field(ge=1, le=3600)] = 60.0
    """How long the CA may take for an answer; then another issuer may continue the order."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """The connector's own keys."""


def _kind_of_issuer(table: object) -> str:
    """Tell which keys an issuer's table has; `local` is the kind of a table that names none."""
    found = table.get("kind", "local") if isinstance(table, dict) else getattr(table, "kind", "")
    return "local" if found == "local" else "other"


class Configuration(Section):
    """The whole file."""

    version: Literal[1] = 1
    """Of this file's form."""
    start: Literal["all", "available"] = "all"
    """available: a profile that cannot be served is left out and said so; all: nothing starts."""
    bus: BusSection
    log: LogSection = LogSection()
    trust: TrustSection
    tracing: TracingSection = TracingSection()
    gateway: GatewaySection
    validator: ValidatorSection
    issuer: IssuerSection
    audit: AuditSection
    issuers: dict[
        PathId,
        Annotated[
            Annotated[LocalIssuerSection, Tag("local")] | Annotated[ConnectorSection, Tag("other")],
            Discriminator(_kind_of_issuer),
        ],
    ]
    certificate_profiles: dict[PathId, CertificateProfileSection]
    profiles: dict[PathId, ProfileSection] = Field(min_length=1)
    directory: Path = Path()
    left_out: dict[str, str] = Field(default_factory=dict)

    def epochs(self) -> tuple[Epoch, ...]:
        """The shard maps by profile: a profile's own `shard`, else where its fleet is pinned."""
        return tuple(
            Epoch(
                each.effective_at,
                each.shards,
                {n: shard for n, shard in each.pinned.items() if n not in self.profiles}
                | {
                    name: shard
                    for name, profile in self.profiles.items()
                    if (shard := profile.shard or each.pinned.get(profile.fleet or name))
                },
            )
            for each in self.log.epochs
        )

    def servers(self) -> Servers:
        """Where the event log is."""
        return Servers(self.bus.url, replicated=self.log.replicas > 1)

    def max_bytes(self) -> dict[Quota, int]:
        """The largest size of each class of streams; 0: unlimited."""
        return {quota: getattr(self.log, f"max_bytes_{quota}") for quota in Quota}

    def notified(self) -> tuple[str, ...]:
        """The profiles of whose enrollments somebody is told."""
        return tuple(n for n, p in self.profiles.items() if p.notify_webhook_url is not None)

    def path(self, path: Path) -> Path:
        """A configured path, relative to the file it stands in; a PKCS#11 URI stays as it is."""
        return path if is_token_uri(path) else self.directory / path
