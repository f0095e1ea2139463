"""What the configuration may hold: every table and key, with types, limits and defaults."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.fields import (
    Duration,
    ExtendedKeyUsages,
    KeyTypes,
    KeyUsages,
    Names,
    PathId,
    Paths,
    Pins,
    SanKinds,
    Secrets,
    Token,
    is_token_uri,
)
from shared.shards import Epoch


class Section(BaseModel):
    """What every part of the configuration is: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )


class BusSection(Section):
    """Where nats-server is."""

    url: str
    """nats-server, as nats://HOST:PORT."""


class EpochSection(Section):
    """A shard map and when (Unix seconds) it takes effect."""

    effective_at: float = 0.0
    """Unix seconds from which this map holds."""
    shards: Annotated[tuple[Token, ...], Field(min_length=1)] = ("0",)
    """Shard names; transactions are spread over them by hash."""
    pinned: dict[str, Token] = {}
    """Profile to shard, for fleets that must stay on one."""

    def epoch(self) -> Epoch:
        """The same, as the shard map's functions take it."""
        return Epoch(self.effective_at, self.shards, self.pinned)


class LogSection(Section):
    """The event log: its shard maps, its replicas."""

    epochs: tuple[EpochSection, ...] = (EpochSection(),)
    """Shard maps, past and planned."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream: 3 in a cluster."""
    sync_interval: Annotated[str, Field(pattern=r"^(always|\d+(ms|s))$")] = "100ms"
    """How often `up`'s nats-server forces events to the disk; "always": before each answer."""
    retry_window: Duration = 86400.0
    """How long the shards of an earlier epoch are looked up."""


class TrustSection(Section):
    """Public keys that services believe: never taken from the bus."""

    validator_keys: Paths
    """Ed25519 public keys of the validators, PEM."""
    issuer_keys: Paths
    """Ed25519 public keys of the issuers, PEM."""
    audit_keys: Paths
    """Ed25519 public keys of the audit service, PEM."""
    sealing_key: Path
    """X25519 public key to which gateways seal content keys, PEM."""


class GatewaySection(Section):
    """The HTTP edge."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    default_profile: str | None = None
    """The profile that /scep without a name serves."""
    body_limit: int = Field(default=256 * 1024, ge=4096, le=512 * 1024)
    """Largest message in bytes."""
    max_in_flight: int = Field(default=2048, ge=1)
    """Requests in work at once, all sources together."""
    max_in_flight_per_source: int = Field(default=1024, ge=1)
    """Requests in work at once from one client address."""
    failure_floor: Duration = 0.05
    """When the one answer to every decryption failure leaves."""
    trusted_proxies: Names = ()
    """Addresses whose X-Forwarded-For and Client-Cert are believed."""
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
    """The keeper of the read model."""

    nkey_path: Path
    """The role's nkey seed for the bus, mode 0600."""
    signing_key_path: Path
    """Ed25519 key that signs operators' decisions and orders, PEM, mode 0600."""
    database_url: str
    """sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."""
    batch: int = Field(default=256, ge=1, le=4096)
    """Events in one transaction at most."""


class LocalIssuerSection(Section):
    """A CA whose key is a file, and the ceilings that no verdict exceeds."""

    kind: Literal["local"] = "local"
    """The connector."""
    ca_cert_path: Paths
    """The CA certificate, PEM, the chain above it may follow; then those of previous CAs."""
    ca_key_path: Paths
    """Their keys in the same order, RSA or P-256, PEM, mode 0600."""
    chain_path: Path | None = None
    """Certificates above the CA, PEM."""
    next_ca_cert_path: Path | None = None
    """The CA certificate to come, PEM: what GetNextCACert shows."""
    next_ca_key_path: Path | None = None
    """Its key."""
    crl_validity: Duration = 7 * 86400.0
    """From a CRL's thisUpdate to its nextUpdate; it is signed anew at half of it, and on change."""
    secret_path: Path
    """Secret from which serial numbers are made, 32 bytes or more, mode 0600."""
    max_ttl: Duration = 2 * 365 * 86400.0
    """No certificate lives longer, whatever the verdict says."""
    extended_key_usages: ExtendedKeyUsages = (
        "clientAuth",
        "serverAuth",
        "emailProtection",
    )
    """No others are signed."""


class CertificateProfileSection(Section):
    """What certificates of a kind look like."""

    key_types: KeyTypes = (
        "rsa:2048",
        "rsa:3072",
        "rsa:4096",
    )
    """Keys that may enroll: rsa:BITS, ec:p256, ec:p384, ec:p521."""
    key_usages: KeyUsages = (
        "digitalSignature",
        "keyEncipherment",
    )
    """KeyUsage of the certificates."""
    extended_key_usages: ExtendedKeyUsages = ("clientAuth",)
    """ExtendedKeyUsage: names or OIDs."""
    sans: SanKinds = (
        "dns",
        "rfc822",
        "uri",
        "ip",
        "upn",
    )
    """Kinds of subjectAltName that a CSR may ask for."""
    crl_distribution_points: Names = ()
    """URLs where relying parties find the CRL (RFC 5280 4.2.1.13)."""
    max_ttl: Duration = 365 * 86400.0
    """Lifetime, cut where the CA ends."""
    backdate: Duration = 600.0
    """How long before the request validity begins: clocks differ."""


class ProfileSection(Section):
    """One SCEP endpoint; keys are named as operators know them."""

    issuer_id: str
    """Which of the issuers signs."""
    ca_spki_sha256: Pins
    """SHA-256 of its CA's SubjectPublicKeyInfo, and of CAs before and after it: no other counts."""
    profile_id: str
    """Which certificate profile applies."""
    challenge_password: Secrets = ()
    """The `static` verifier: one value, or several while rotating."""
    ra_cert_path: Paths
    """RA certificates, PEM: one, or one to sign and one to decrypt, and older ones."""
    ra_key_path: Paths
    """Their keys in the same order, PEM, mode 0600."""
    legacy: bool = False
    """Accept MD5, SHA-1, DES and 3DES."""
    reply_digest: Literal["md5", "sha1", "sha256", "sha384", "sha512"] | None = None
    """Weakest digest of a reply, which else is the request's [sha256; md5 if legacy]."""
    reply_cipher: Literal["des", "des3", "aes128", "aes192", "aes256"] | None = None
    """Weakest cipher of a reply, which else is the request's [aes128; des if legacy]."""
    password_recipients: bool = False
    """Open requests encrypted to the challenge password (RFC 8894 3.1): gateways then hold it."""
    mtls_enabled: bool = False
    """Serve the sibling /scep-mtls/PATH-ID, which wants a client certificate as well."""
    mtls_client_ca_trust_bundle_path: Path | None = None
    """The CAs whose clients it takes, PEM."""
    approval: Literal["auto", "manual"] = "auto"
    """manual: an operator decides (`scepstream approve`, `deny`); devices are told PENDING."""
    renewal: bool = True
    """Whether a certificate issued here may be renewed by signing the request with it."""
    renewal_window: Duration | None = None
    """How long before its end a certificate may be renewed [its last third]; "0s": any time."""
    renewal_grace: Duration = 0.0
    """How long after its end it still may."""
    renewal_challenge: bool = False
    """Whether a renewal needs the challenge password too."""
    renewal_names: Literal["same", "any"] = "same"
    """Whether a renewal may change subject and subjectAltName."""
    renewal_key_reuse: bool = False
    """Whether one key may be renewed with itself more than once."""
    include_chain: bool = False
    """Send the certificates above the issuing CA too."""
    reply_budget: Duration = 10.0
    """When a device that still waits is told PENDING."""


class Configuration(Section):
    """The whole file."""

    version: Literal[1] = 1
    bus: BusSection
    log: LogSection = LogSection()
    trust: TrustSection
    gateway: GatewaySection
    validator: ValidatorSection
    issuer: IssuerSection
    audit: AuditSection
    issuers: dict[PathId, LocalIssuerSection]
    certificate_profiles: dict[PathId, CertificateProfileSection]
    profiles: dict[PathId, ProfileSection] = Field(min_length=1)
    directory: Path = Path()

    def path(self, path: Path) -> Path:
        """A configured path, relative to the file it stands in; a PKCS#11 URI is none."""
        return path if is_token_uri(path) else self.directory / path
