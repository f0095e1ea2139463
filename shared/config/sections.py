"""Schema of the configuration: every table and key, with types, limits and defaults."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from shared.bus.servers import Servers
from shared.bus.topology import Quota
from shared.config.fields import (
    BusUrls,
    Duration,
    ExtendedKeyUsages,
    Guid,
    HostSuffixes,
    HttpsUrl,
    HttpUrls,
    Issuer,
    Names,
    NetworkNames,
    Origin,
    Partitions,
    PathId,
    Paths,
    Periods,
    PolicyOids,
    Section,
    Size,
    TenantId,
    Token,
    is_token_uri,
)
from shared.config.profiles import CertificateProfileSection, ProfileSection
from shared.limits import MAX_OCSP_DAYS
from shared.log.shards import Epoch

_GIB: Final = 2**30


class BusSection(Section):
    """The connection to nats-server."""

    url: BusUrls
    """nats-server, as nats://HOST:PORT; for a cluster a list of nodes, one of which must answer."""


class EpochSection(Section):
    """A shard map and when (Unix seconds) it takes effect."""

    effective_at: float = 0.0
    """Unix seconds from which this map applies."""
    shards: Annotated[tuple[Token, ...], Field(min_length=1)] = ("0",)
    """Shard names; transactions are distributed over them by hash."""
    pinned: dict[str, Token] = Field(default_factory=dict)
    """Fleet name to shard, for fleets that must stay on one shard."""


class LogSection(Section):
    """The event log: shard maps, replicas and sizes."""

    epochs: tuple[EpochSection, ...] = (EpochSection(),)
    """Shard maps, past and planned."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream: 3 in a cluster."""
    sync_interval: Annotated[str, Field(pattern=r"^(always|\d+(ms|s))$")] = "100ms"
    """How often the nats-server of `up` syncs events to disk; "always": before it acknowledges."""
    retry_window: Duration = 86400.0
    """How long repeated requests are looked up on shards of an earlier epoch; polls always are."""
    max_bytes_enrollments: Size = 16 * _GIB
    """Maximum size of each shard's stream of enrollments; when 80 % full, gateways answer 503."""
    max_bytes_certificates: Size = 4 * _GIB
    """Maximum size of the index of certificates."""
    max_bytes_crls: Size = 2 * _GIB
    """Maximum size of all CRLs of the last 90 days."""
    max_bytes_ocsp: Size = 4 * _GIB
    """Maximum size of the OCSP responses: two to three for each certificate."""
    max_bytes_commands: Size = 2 * _GIB
    """Maximum size of operators' commands, the answers to them, and checkpoints."""
    max_bytes_shared: Size = _GIB
    """Maximum size of each stream that replicas share: replay records, windows, heartbeats."""
    max_bytes_dead_letters: Size = _GIB
    """Maximum size of the dead letters."""


class TrustSection(Section):
    """Public keys that services trust. They are never read from the bus."""

    validator_keys: Paths
    """Ed25519 public keys of the validators, PEM."""
    issuer_keys: Paths
    """Ed25519 public keys of the issuers, PEM."""
    audit_keys: Paths
    """Ed25519 public keys of the audit service, PEM."""
    sealing_key: Path
    """X25519 public key to which gateways seal content keys, PEM."""
    issuer_sealing_key: Path | None = None
    """X25519 public key to which validators seal CSRs for external CAs, PEM."""


class TracingSection(Section):
    """OpenTelemetry traces of every service; requires the extra `tracing`."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[!-?A-~]+$", max_length=255)] | None = None
    """OTLP/HTTP endpoint, http(s)://HOST:PORT/v1/traces [no traces]."""
    sample_ratio: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of requests to trace, 0 to 1."""


class GatewaySection(Section):
    """The gateway: SCEP over HTTP."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    default_profile: str | None = None
    """SCEP profile that /scep without a name serves."""
    body_limit: int = Field(default=256 * 1024, ge=4096, le=512 * 1024)
    """Largest message in bytes on any profile; a profile's `message_limit` applies within it."""
    max_in_flight: int = Field(default=2048, ge=1)
    """Concurrent requests, all sources together."""
    max_in_flight_per_source: int = Field(default=1024, ge=1)
    """Concurrent requests from one client address."""
    max_wait: Annotated[Duration, Field(gt=0)] = 1.5
    """How long a profile's requests may queue under load; those that would wait longer get 503."""
    rate_per_source: float = Field(default=100.0, ge=0.0)
    """PKIOperations a second from one address (IPv6: /64); others get 503; 0: unlimited."""
    burst_per_source: int = Field(default=1000, ge=1)
    """PKIOperations that one address may send at once."""
    max_connections_per_source: int = Field(default=1024, ge=1)
    """Connections from one address (IPv6: /64); if exceeded, its longest idle one is closed."""
    max_unfinished_per_source: int = Field(default=256, ge=1)
    """Unfinished requests from one address; if exceeded, the longest silent one is closed."""
    failure_floor: Duration = 0.05
    """Delay of the uniform answer to decryption failures, from the request's arrival."""
    trusted_proxies: NetworkNames = ()
    """Proxies (addresses, CIDR networks) whose X-Forwarded-For and Client-Cert are trusted."""
    tls_cert_path: Path | None = None
    """Certificate (chain) of the TLS and mTLS listeners, PEM."""
    tls_key_path: Path | None = None
    """Its key, PEM, mode 0600."""


class ValidatorSection(Section):
    """The validator, which decides who may enroll."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    signing_key_path: Path
    """Ed25519 key that signs this role's events, PEM, mode 0600."""
    opening_key_path: Paths
    """X25519 private keys that open sealed content keys, PEM, mode 0600."""
    blocked_keys_path: Paths | None = None
    """Lists of keys that must not be certified: SHA-256 of the SubjectPublicKeyInfo, or an entry of
    Debian's openssl-blacklist, one a line [none].
    """
    verdict_ttl: Duration = 86400.0
    """How long the issuer may act on an approval."""
    concurrency: int = Field(default=64, ge=1, le=1024)
    """Messages handled concurrently."""


class IssuerSection(Section):
    """The issuer, which signs certificates and CRLs."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    signing_key_path: Path
    """Ed25519 key that signs this role's events, PEM, mode 0600."""
    opening_key_path: Paths | None = None
    """X25519 private keys that open CSRs for external CAs, PEM, mode 0600."""
    concurrency: int = Field(default=64, ge=1, le=1024)
    """Messages handled concurrently."""


class AuditSection(Section):
    """The audit service: the read model, and the operators' API and page."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    signing_key_path: Path
    """Ed25519 key that signs operators' decisions and commands, PEM, mode 0600."""
    database_url: str
    """sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME. libpq parameters in the URL
    (`?connect_timeout=10`) override the built-in timeouts."""
    admin_token_path: Path | None = None
    """File of the first admin's API token, mode 0600 [created at first start and printed once]."""
    batch: int = Field(default=1024, ge=1, le=4096)
    """Maximum number of events in one transaction."""
    public_url: Origin | None = None
    """URL of the operators' page, http(s)://HOST[:PORT]; with https its cookie requires TLS."""
    session_ttl: Duration = 12 * 3600.0
    """How long a login at the page is valid."""
    oidc_issuer: Issuer | None = None
    """OpenID Connect provider for sign-in at the page; requires `public_url` [API tokens only]."""
    oidc_client_id: str | None = None
    """Client ID of the page there; its redirect URI is PUBLIC_URL/login/oidc/callback."""
    oidc_client_secret_path: Path | None = None
    """File of the client secret, mode 0600 [none: a public client with PKCE alone]."""
    oidc_ca_path: Path | None = None
    """CAs of the provider's TLS certificate, PEM [the system's]."""
    oidc_roles_claim: str = "roles"
    """ID token claim that holds a user's roles, a string or a list; nested: a.b."""
    oidc_viewers: Names = ()
    """Roles of viewers, who may only read."""
    oidc_operators: Names = ()
    """Roles of operators, who may also run commands."""
    oidc_admins: Names = ()
    """Roles of admins."""
    expiry_webhook_url: str | None = None
    """URL to notify of certificates that are about to expire; https, or http on loopback."""
    expiry_webhook_before: Periods = ("30d", "7d", "1d")
    """How long before the end of a certificate to notify, once for each of these times."""
    expiry_webhook_secret_path: Path | None = None
    """File of the HMAC-SHA256 key for the bodies posted there, 16 bytes or more, mode 0600 [not
    signed]. Line ends around it are not part of it.
    """
    expiry_webhook_ca_path: Path | None = None
    """CAs of the URL's TLS certificate, PEM [the system's]."""
    expiry_webhook_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """How long an answer may take; what is not answered with a 2xx is posted again."""


class AnyIssuerSection(Section):
    """Keys of every issuer: its CAs, and the ceilings that no verdict exceeds."""

    kind: str
    """Name of the connector."""
    ca_cert_path: Paths
    """CA certificate, PEM, optionally with its chain; then the same for previous CAs."""
    chain_path: Path | None = None
    """Certificates above the CA, PEM."""
    max_ttl: Annotated[Duration, Field(ge=1)] = 2 * 365 * 86400.0
    """Maximum lifetime of a certificate from its approval on, whatever the verdict says."""
    max_backdate: Duration = 3600.0
    """How far notBefore may precede the request, whatever the verdict says."""
    extended_key_usages: ExtendedKeyUsages = (
        "clientAuth",
        "serverAuth",
        "emailProtection",
    )
    """ExtendedKeyUsages that may be signed, by name or OID."""
    certificate_policies: PolicyOids = ()
    """Certificate policies that may be signed, by OID. Relying parties may grant something by them.
    """
    allow_sid: bool = False
    """Whether the extension with a SID may be signed, by which domain controllers log accounts on.
    """


class LocalIssuerSection(AnyIssuerSection):
    """A CA whose key is in a file or a PKCS#11 token."""

    kind: Literal["local"] = "local"
    """Name of the connector."""
    ca_key_path: Paths
    """The CAs' keys in the same order, RSA or P-256, PEM, mode 0600."""
    next_ca_cert_path: Path | None = None
    """Certificate of the next CA, PEM, which GetNextCACert announces."""
    next_ca_key_path: Path | None = None
    """Its key."""
    crl_validity: Duration = 7 * 86400.0
    """From a CRL's thisUpdate to its nextUpdate; CRLs are renewed at half of it, and on change."""
    ra_cert_path: Paths | None = None
    """RA certificates of this CA, PEM, which the issuer renews under the same key when two thirds
    of their life are over."""
    ocsp_validity: Annotated[Duration, Field(ge=3600, le=MAX_OCSP_DAYS * 86400)] | None = None
    """From an OCSP response's thisUpdate to its nextUpdate; responses are renewed at half of it,
    and on change [no OCSP responses]."""
    crl_partitions: Partitions = ()
    """Number of partitions of the CRL (2 to 256), which certificates then name; then earlier
    numbers while certificates that name them are valid [complete CRLs only].
    """
    crl_partition_urls: HttpUrls = ()
    """Beginning of the partitions' URLs, http://HOST/crl/NAME; required with `crl_partitions`."""
    secret_path: Path
    """Secret for serial numbers, 32 bytes or more, mode 0600; the same on all replicas."""


class ConnectorSection(AnyIssuerSection):
    """A CA behind a connector from an installed package."""

    kind: Token
    """Name of the connector (entry point of `scepstream.issuers`)."""
    lease: Annotated[Duration, Field(ge=1, le=3600)] = 60.0
    """How long the CA may take to answer; then another replica may continue the order."""
    pending_limit: Annotated[Duration, Field(ge=60)] = 14 * 86400.0
    """How long the CA may leave an order undecided; then the enrollment fails."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Options of the connector."""


class IntuneSection(Section):
    """A tenant of Microsoft Intune, and the app there by which this service asks Microsoft."""

    cloud: Literal["public", "gcc_high", "dod", "china"] = "public"
    """Microsoft's cloud that the tenant is in. For "china" also set `resource_url` and
    `service_hosts`: Microsoft does not document them.
    """
    tenant_id: TenantId
    """The tenant: its GUID, or one of its domains."""
    client_id: Guid
    """Application (client) ID of the app registration, a GUID."""
    client_secret_path: Annotated[Paths, Field(max_length=2)] | None = None
    """File of the client secret, mode 0600; optionally a second one with the next secret."""
    client_cert_path: Annotated[Paths, Field(max_length=2)] | None = None
    """The app's certificate, PEM, instead of a secret; optionally a second one, the next."""
    client_key_path: Annotated[Paths, Field(max_length=2)] | None = None
    """The certificates' RSA keys in the same order, PEM, mode 0600."""
    thumbprint_algorithm: Literal["sha256", "sha1"] = "sha256"
    """How the app's certificate is named in assertions: sha256: PS256 with x5t#S256 and x5c; sha1:
    RS256 with x5t, for compatibility.
    """
    provider_name: (
        Annotated[str, Field(pattern=r"^[!-~]([ -~]*[!-~])?$", max_length=128)] | None
    ) = None
    """Name and version under which Microsoft sees this service [scepstream/VERSION]."""
    ca_configuration: Annotated[str, Field(pattern=r"^[!-~]+$", max_length=128)] | None = None
    """ID of the CA in notifications, which Intune's revocation requests repeat; never change it
    [the connection's NAME].
    """
    login_url: HttpsUrl | None = None
    """Base URL of Entra ID, instead of the cloud's; ends in "/"."""
    graph_url: HttpsUrl | None = None
    """Base URL of Microsoft Graph, instead of the cloud's; ends in "/"."""
    resource_url: HttpsUrl | None = None
    """URL that names the Intune API in tokens, instead of the cloud's; ends in "/"."""
    scep_api_version: Annotated[str, Field(pattern=r"^[0-9-]{8,16}$")] = "2018-02-20"
    """api-version of the SCEP validation service."""
    revocation_api_version: Annotated[str, Field(pattern=r"^[0-9-]{8,16}$")] = "5019-05-05"
    """api-version of the revocation service."""
    service_hosts: HostSuffixes | None = None
    """Hosts to which tokens for Intune may be sent: domains, with all names under them, instead of
    the cloud's.
    """
    ca_path: Path | None = None
    """CAs of Microsoft's TLS certificates, PEM [the system's]."""
    concurrency: int = Field(default=32, ge=1, le=256)
    """Requests to Microsoft under way at once, for this tenant."""
    budget: Annotated[Duration, Field(ge=1, le=60)] = 25.0
    """How long one call may take, with all its retries."""
    revocations: bool = True
    """Whether to carry out Intune's requests to revoke certificates."""
    revocation_interval: Annotated[Duration, Field(ge=60, le=86400)] = 600.0
    """How often to ask for revocation requests."""


def _kind_of_issuer(table: object) -> str:
    """Return the union tag of an issuer's table; a table without `kind` is `local`."""
    found = table.get("kind", "local") if isinstance(table, dict) else getattr(table, "kind", "")
    return "local" if found == "local" else "other"


class Configuration(Section):
    """The whole configuration file."""

    version: Literal[1] = 1
    """Version of the file's format."""
    start: Literal["all", "available"] = "all"
    """If a profile cannot be served: all: do not start; available: log it and leave it out."""
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
    intune: dict[PathId, IntuneSection] = Field(default_factory=dict)
    certificate_profiles: dict[PathId, CertificateProfileSection]
    profiles: dict[PathId, ProfileSection] = Field(min_length=1)
    directory: Path = Path()
    left_out: dict[str, str] = Field(default_factory=dict)

    def epochs(self) -> tuple[Epoch, ...]:
        """Return the shard maps by profile: its own `shard`, else where its fleet is pinned."""
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

    def partitioned(self) -> dict[str, LocalIssuerSection]:
        """Return the issuers whose CRLs are partitioned."""
        return {
            name: issuer
            for name, issuer in self.issuers.items()
            if isinstance(issuer, LocalIssuerSection) and issuer.crl_partitions
        }

    def servers(self) -> Servers:
        """Return the nats-servers of the event log."""
        return Servers(self.bus.url, replicated=self.log.replicas > 1)

    def max_bytes(self) -> dict[Quota, int]:
        """Return the maximum bytes of each class of streams; 0: unlimited."""
        return {quota: getattr(self.log, f"max_bytes_{quota}") for quota in Quota}

    def notified(self) -> tuple[str, ...]:
        """Return the profiles whose enrollments are sent to a notification webhook."""
        return tuple(n for n, p in self.profiles.items() if p.notify_webhook_url is not None)

    def confirmed(self) -> tuple[str, ...]:
        """Return the profiles whose certificates a connection's service is notified of."""
        return tuple(n for n, p in self.profiles.items() if p.intune_connection is not None)

    def path(self, path: Path) -> Path:
        """Resolve a path relative to the configuration file; leave a PKCS#11 URI unchanged."""
        return path if is_token_uri(path) else self.directory / path
