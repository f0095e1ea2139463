"""The tables of the configuration that stand for SCEP endpoints and their certificates."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from shared.config.fields import (
    Duration,
    ExtendedKeyUsages,
    KeyTypes,
    KeyUsages,
    Names,
    Paths,
    Pins,
    SanKinds,
    Secrets,
    Section,
    SubjectAttributes,
    Token,
)
from shared.x509.usages import PLAIN_ATTRIBUTES

SHORT_MESSAGE: Final = 64 * 1024
LONG_MESSAGE: Final = 256 * 1024


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

    fleet: str | None = None
    """Which fleet its devices are of [the profile's name]: what shard maps pin, and the record."""
    shard: Token | None = None
    """The shard of the log that it lives on [where its fleet is pinned, else by transaction].

    To move a profile that is in use add an epoch instead.
    """
    issuer_id: str
    """Which of the issuers signs."""
    ca_spki_sha256: Pins
    """SHA-256 of its CA's SubjectPublicKeyInfo, and of CAs before and after it: no other counts."""
    profile_id: str
    """Which certificate profile applies."""
    challenge_password: Secrets = Field(default=(), repr=False)
    """The `static` verifier: one value, or several while rotating."""
    intune_enabled: bool = False
    """The `signed` verifier: tokens of a connector, checked against its certificate."""
    intune_connector_cert_path: Path | None = None
    """The connectors' certificates, PEM, or one in DER; required with it."""
    intune_tenant_cert_paths: dict[str, Path] = Field(default_factory=dict)
    """Bundles of single tenants, by the `iss` of their tokens: then no other verifies those."""
    intune_audience: str | None = None
    """The `aud` that a token must have [any]."""
    intune_challenge_validity: Annotated[Duration, Field(ge=1)] = 3600.0
    """How old a token may be, whatever its own end."""
    intune_clock_skew_tolerance: Annotated[Duration, Field(ge=0)] = 60.0
    """How far the connector's clock may be off."""
    intune_per_device_rate_limit_24h: int = Field(default=3, ge=0, le=1000)
    """Enrollments of one device (`sub`, `iss`) within 24 hours; 0: any number."""
    unclaimed_sans: Literal["refuse", "allow"] = "refuse"
    """What to do with subjectAltNames of kinds that the token does not speak of."""
    allowed_subject_attributes: SubjectAttributes = PLAIN_ATTRIBUTES
    """What a subject may hold beside the CN where a challenge is for a certain device.

    Names (OU, UID, DC, emailAddress, unstructuredName) or OIDs; "any": whatever the device asks.
    """
    device_state: str | None = None
    """Plug-in that is asked about every device, as module:attribute [none]."""
    device_state_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    """How long it may take; then the device is refused."""
    verifier: dict[Token, dict[str, Any]] = Field(default_factory=dict, repr=False)
    """Verifiers of other packages (`scepstream.verifiers`), each with a table of its options."""
    one_time_enabled: bool = False
    """The `one_time` verifier: `scepstream challenge new` makes them."""
    webhook_url: str | None = None
    """The `webhook` verifier: the service that is asked, https or on loopback."""
    notify_webhook_url: str | None = None
    """A service that is notified of what was issued and what failed, https or on loopback."""
    webhook_secret: str | None = Field(default=None, repr=False)
    """Key of the HMAC-SHA256 over what is posted to either."""
    webhook_bearer_token: str | None = Field(default=None, repr=False)
    """Bearer token for either."""
    webhook_ca_path: Path | None = None
    """The CAs of their TLS certificates, PEM [the system's]."""
    webhook_client_cert_path: Path | None = None
    """Client certificate for either, PEM."""
    webhook_client_key_path: Path | None = None
    """Its key, PEM, mode 0600."""
    webhook_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """How long an answer may take, waiting for a place included; then the device is refused."""
    webhook_concurrency: int = Field(default=16, ge=1, le=256)
    """Questions under way at once, from each validator."""
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
    signer_key: Literal["any", "csr"] = "any"
    """Who may sign a first request: any key (macOS makes one of its own), or the CSR's alone."""
    empty_content: Literal["auto", "present", "absent"] = "auto"
    """eContent of replies without a certificate: empty, absent (cryptlib), or by User-Agent."""
    password_recipients: bool = False
    """Open requests encrypted to the challenge password (RFC 8894 3.1): gateways then hold it."""
    mtls_enabled: bool = False
    """Serve the sibling /scep-mtls/PATH-ID, which wants a client certificate as well."""
    mtls_client_ca_trust_bundle_path: Path | None = None
    """The CAs whose clients it takes, PEM."""
    approval: Literal["auto", "manual"] = "auto"
    """manual: an operator decides (`scepstream approve`, `deny`); devices receive PENDING."""
    renewal: bool = True
    """Whether a certificate issued here may be renewed by signing the request with it."""
    renewal_window: Duration | None = None
    """How long before its end a certificate may be renewed [its last third]; "0s": any time."""
    renewal_grace: Duration = 0.0
    """How long after its end it still may."""
    renewal_challenge: bool | None = None
    """Whether a renewal needs a challenge too [where `signed` or `webhook` is accepted]."""
    renewal_names: Literal["same", "any"] = "same"
    """Whether a renewal may change subject and subjectAltName."""
    renewal_key_reuse: bool = False
    """Whether one key may be renewed with itself more than once."""
    message_limit: Annotated[int, Field(ge=4096, le=512 * 1024)] | None = None
    """Largest message in bytes [65536; 262144 where challenges may be long].

    They may be with `intune_enabled`, `webhook_url` or `verifier`.
    """
    include_chain: bool = False
    """Send the certificates above the issuing CA too."""
    reply_budget: Duration = 10.0
    """When a device that still waits receives PENDING."""

    @property
    def largest_message(self) -> int:
        """The bytes a message may have: challenges that are tokens make long ones."""
        if self.message_limit is not None:
            return self.message_limit
        is_long = self.intune_enabled or self.webhook_url or self.verifier
        return LONG_MESSAGE if is_long else SHORT_MESSAGE

    @property
    def verifiers(self) -> tuple[str, ...]:
        """The kinds of challenges that are accepted."""
        accepted = {
            "static": any(self.challenge_password),
            "signed": self.intune_enabled,
            "one_time": self.one_time_enabled,
            "webhook": self.webhook_url is not None,
        }
        built_in = tuple(kind for kind, is_accepted in accepted.items() if is_accepted)
        return (*built_in, *self.verifier)
