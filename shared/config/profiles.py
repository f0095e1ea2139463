"""Configuration tables of SCEP profiles and certificate profiles."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from shared.config.fields import (
    CertificatePolicies,
    Duration,
    ExtendedKeyUsages,
    HttpUrls,
    KeyTypes,
    KeyUsages,
    Names,
    Paths,
    Pins,
    SanKinds,
    SanPatterns,
    SanTemplates,
    Secrets,
    Section,
    SubjectAttributes,
    SubjectPatterns,
    SubjectTemplates,
    Token,
)
from shared.x509.usages import PLAIN_ATTRIBUTES

SHORT_MESSAGE: Final = 64 * 1024
LONG_MESSAGE: Final = 256 * 1024


class CertificateProfileSection(Section):
    """A certificate profile: what its certificates may contain."""

    key_types: KeyTypes = (
        "rsa:2048",
        "rsa:3072",
        "rsa:4096",
    )
    """Key types that may enroll: rsa:BITS, ec:p256, ec:p384, ec:p521."""
    key_usages: KeyUsages = (
        "digitalSignature",
        "keyEncipherment",
    )
    """KeyUsage of the certificates."""
    extended_key_usages: ExtendedKeyUsages = ("clientAuth",)
    """ExtendedKeyUsage: names or OIDs. A CSR may ask for some of them, but not for others."""
    sans: SanKinds = (
        "dns",
        "rfc822",
        "uri",
        "ip",
        "upn",
    )
    """Kinds of subjectAltName that a CSR may request."""
    subject_patterns: SubjectPatterns = ()
    r"""Patterns as TYPE=PATTERN, one of which each attribute of the subject must match completely
    ("CN=device-*", "O=Corp") [any subject]. `*`: any characters but an asterisk, also none;
    `\*`: an asterisk.
    """
    san_patterns: SanPatterns = ()
    """Patterns as KIND:PATTERN, one of which each subjectAltName must match completely
    ("dns:*.corp.example", "ip:192.0.2.0/24") [any name of these kinds]. `*` is as above, but not @
    in rfc822 and upn, nor any of / ? # @ in a uri. Renewals must match too.
    """
    subject_template: SubjectTemplates = ()
    """The subject, as TYPE=TEMPLATE for each attribute ("CN={device_name}", "O=Corp"), built from
    what the verifier proved about the device [the CSR's subject]. docs/challenges.md lists the
    names in braces.
    """
    san_templates: SanTemplates = ()
    """The subjectAltNames, as KIND:TEMPLATE ("dns:{san_dns}", "uri:urn:device:{device_id}"), kinds
    dns, rfc822, uri and upn [the CSR's].
    """
    sid_extension: bool = False
    """Whether certificates have the extension with the SID of an Active Directory account, which
    the webhook, the device-state plug-in or a package's verifier must answer, or `sid_lookup` find.
    The issuer must have `allow_sid`.
    """
    crl_distribution_points: Names = ()
    """URLs of the CRL for relying parties (RFC 5280 4.2.1.13)."""
    ca_issuers: HttpUrls = ()
    """URLs of the CA's certificate for relying parties, http:// (RFC 5280 4.2.2.1)."""
    ocsp: HttpUrls = ()
    """URLs of the CA's OCSP responders for relying parties, http:// (RFC 5280 4.2.2.1)."""
    must_staple: bool = False
    """Whether a TLS server must staple an OCSP response to the certificate (RFC 7633)."""
    certificate_policies: CertificatePolicies = ()
    """Policies of the certificates: "OID", or "OID URL" with the practice statement's URL.

    The issuer's `certificate_policies` must list the OIDs.
    """
    max_ttl: Annotated[Duration, Field(ge=1)] = 365 * 86400.0
    """Lifetime of a certificate. The issuer's `max_ttl`, the end of the CA and a validity that the
    CSR asks for may make it shorter.
    """
    backdate: Duration = 600.0
    """How long before the request a certificate becomes valid, to tolerate clocks that differ."""


class ProfileSection(Section):
    """A SCEP profile: one endpoint. Keys that certctl has too have the same names here."""

    fleet: str | None = None
    """Fleet of its devices, for shard maps and the audit record [the profile's name]."""
    shard: Token | None = None
    """Shard of the log for its enrollments [where its fleet is pinned, else by transaction].

    To move a profile that is in use, add an epoch instead.
    """
    issuer_id: str
    """Issuer that signs its certificates."""
    ca_spki_sha256: Pins
    """SHA-256 of the SubjectPublicKeyInfo of its CA, and of previous and next CAs. No other CA is
    trusted.
    """
    profile_id: str
    """Certificate profile of its certificates."""
    challenge_password: Secrets = Field(default=(), repr=False)
    """The `static` verifier: one password, or several during a rotation."""
    intune_connection: Token | None = None
    """The `intune` verifier: the tenant connection ([intune.NAME]) whose Intune validates each
    challenge and is notified of each certificate.
    """
    intune_wait_for_success_notification: bool = True
    """Whether a device receives its certificate only after Intune has accepted the notification of
    it. Otherwise Intune is notified afterwards, at best effort.
    """
    intune_allow_static: bool = False
    """Accept a static challenge password beside `intune_connection`, which admits any device."""
    intune_allow_manual: bool = False
    """Accept `approval = "manual"` beside `intune_connection`, though Intune's devices do not wait.
    """
    intune_allow_pending: bool = False
    """Accept an issuer beside `intune_connection` whose CA may leave a request undecided."""
    compliance: Literal["off", "intune", "entra"] = "off"
    """Whether to look the device up in Graph before issuing: as a managed device of Intune, by its
    Intune ID or Entra ID, or as a device of Entra ID; requires `intune_connection`.
    """
    compliance_policy: dict[str, Literal["allow", "deny", "defer"]] = Field(default_factory=dict)
    """What to do in each state: compliant, noncompliant, inGracePeriod, configManager, conflict,
    error, unknown ["allow" for the first and the third, else "deny"]. `defer`: the device receives
    PENDING, and the look-up is repeated.
    """
    compliance_grace: Duration = 0.0
    """How long after its enrollment in Intune a device is allowed in whatever state; Autopilot
    needs it. Not with compliance = "entra", where no time of enrollment is known.
    """
    compliance_not_found: Literal["allow", "deny", "defer"] = "deny"
    """What to do about a device that Graph does not know."""
    compliance_on_error: Literal["allow", "deny"] = "deny"
    """What to do if Graph does not answer or the request names no device."""
    sid_lookup: Literal["off", "user", "device"] = "off"
    """Whose SID to look up in Graph for `sid_extension` with `intune_connection`: the account that
    the UPN in the CSR names, or the device's.
    """
    intune_enabled: bool = False
    """The `signed` verifier: challenges that a connector signed, verified with its certificate."""
    intune_connector_cert_path: Path | None = None
    """The connectors' certificates, PEM, or one in DER; required with `intune_enabled`, unless
    `intune_tenant_cert_paths` names every tenant.
    """
    intune_tenant_cert_paths: dict[str, Path] = Field(default_factory=dict)
    """Bundles of single tenants, by `iss`. They alone verify these tenants' challenges. Without
    `intune_connector_cert_path` challenges of other tenants are refused.
    """
    intune_audience: str | None = None
    """Required `aud` of a signed challenge [any]."""
    intune_challenge_validity: Annotated[Duration, Field(ge=1)] = 3600.0
    """Maximum age of a signed challenge, even if it expires later."""
    intune_clock_skew_tolerance: Annotated[Duration, Field(ge=0)] = 60.0
    """Tolerated difference of the connector's clock."""
    intune_per_device_rate_limit_24h: int = Field(default=3, ge=0, le=1000)
    """Enrollments of one device (`sub`, `iss`) within 24 hours; 0: unlimited."""
    unclaimed_sans: Literal["refuse", "allow"] = "refuse"
    """What to do with kinds of subjectAltName about which the signed challenge has no claim."""
    allowed_subject_attributes: SubjectAttributes = PLAIN_ATTRIBUTES
    """Attributes that a subject may have besides the CN if the challenge is for one device.

    Names (OU, UID, DC, emailAddress, unstructuredName) or OIDs; "any": whatever is requested.
    """
    device_state: str | None = None
    """Plug-in to ask about each device with a signed challenge, as module:attribute [none]."""
    device_state_timeout: Annotated[Duration, Field(gt=0)] = 5.0
    """How long the plug-in may take; then the device is refused."""
    verifier: dict[Token, dict[str, Any]] = Field(default_factory=dict, repr=False)
    """Verifiers from other packages (`scepstream.verifiers`), each with a table of its options."""
    one_time_enabled: bool = False
    """The `one_time` verifier: challenges from `scepstream challenge new`."""
    webhook_url: str | None = None
    """The `webhook` verifier: URL of the service to ask; https, or http on loopback."""
    notify_webhook_url: str | None = None
    """URL to notify of issued certificates and of failures; https, or http on loopback."""
    webhook_secret: str | None = Field(default=None, repr=False)
    """HMAC-SHA256 key for the bodies posted to either URL."""
    webhook_bearer_token: str | None = Field(default=None, repr=False)
    """Bearer token for either URL."""
    webhook_ca_path: Path | None = None
    """CAs of the TLS certificates of either URL, PEM [the system's]."""
    webhook_client_cert_path: Path | None = None
    """TLS client certificate for either URL, PEM."""
    webhook_client_key_path: Path | None = None
    """Its key, PEM, mode 0600."""
    webhook_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """How long an answer may take, time in the queue included; then the device is refused."""
    webhook_concurrency: int = Field(default=16, ge=1, le=256)
    """Concurrent requests to the webhook from each validator."""
    ra_cert_path: Paths
    """RA certificates, PEM: the current one, or one to sign and one to decrypt; then old ones."""
    ra_key_path: Paths
    """Their keys in the same order, PEM, mode 0600."""
    legacy: bool = False
    """Accept MD5, SHA-1, DES, 3DES and RSA exponents below 65537. SHA-1 inside OAEP is accepted
    without it.
    """
    reply_digest: Literal["md5", "sha1", "sha256", "sha384", "sha512"] | None = None
    """Weakest digest of a reply; a stronger one in the request is kept [sha256; md5 if legacy]."""
    reply_cipher: Literal["des", "des3", "aes128", "aes192", "aes256"] | None = None
    """Weakest cipher of a reply; a stronger one in the request is kept [aes128; des if legacy]."""
    signer_key: Literal["any", "csr"] = "any"
    """Key that may sign a first request: any (macOS creates a separate one), or only the CSR's."""
    staple_ocsp: bool = False
    """Whether a reply carries the certificate's OCSP response, in an unsigned attribute. Requires
    `ocsp_validity` of the issuer."""
    empty_content: Literal["auto", "present", "absent"] = "auto"
    """eContent of replies without a certificate: `present` (empty), `absent` (for cryptlib), or
    `auto` (by User-Agent).
    """
    password_recipients: bool = False
    """Accept requests encrypted to the challenge password (RFC 8894 3.1). Gateways then hold it."""
    mtls_enabled: bool = False
    """Also serve /scep-mtls/PATH-ID, which additionally requires a client certificate."""
    mtls_client_ca_trust_bundle_path: Path | None = None
    """CAs of the client certificates that are accepted there, PEM."""
    approval: Literal["auto", "manual"] = "auto"
    """`manual`: an operator decides (`scepstream approve`, `deny`); devices receive PENDING."""
    renewal: bool | None = None
    """Whether a certificate issued here may be renewed by a request that is signed with it [yes; no
    with `intune_connection`, where true is refused].
    """
    renewal_window: Duration | None = None
    """How long before expiry a certificate may be renewed [its last third]; "0s": any time."""
    renewal_grace: Duration = 0.0
    """How long after expiry it may still be renewed."""
    renewal_challenge: bool | None = None
    """Whether a renewal also needs a challenge [if `signed` or `webhook` is accepted]."""
    renewal_names: Literal["same", "any"] = "same"
    """Whether a renewal may change subject and subjectAltName."""
    renewal_key_reuse: bool = False
    """Whether the same key may be kept in more than one renewal."""
    message_limit: Annotated[int, Field(ge=4096, le=512 * 1024)] | None = None
    """Largest message in bytes [65536; with `intune_enabled`, `intune_connection`,
    `webhook_url` or `verifier`, whose challenges may be long, 262144].
    """
    include_chain: bool = False
    """Also send the certificates above the issuing CA."""
    reply_budget: Duration = 10.0
    """How long a device waits for the result before it receives PENDING."""

    @property
    def largest_message(self) -> int:
        """Largest message in bytes: signed challenges and other tokens make messages long."""
        if self.message_limit is not None:
            return self.message_limit
        is_long = self.intune_enabled or self.intune_connection or self.webhook_url or self.verifier
        return LONG_MESSAGE if is_long else SHORT_MESSAGE

    @property
    def renews(self) -> bool:
        """Whether a request may be a renewal; Intune's devices enroll again instead."""
        if self.renewal is None:
            return self.intune_connection is None
        return self.renewal

    @property
    def verifiers(self) -> tuple[str, ...]:
        """The kinds of challenges that the profile accepts."""
        accepted = {
            "static": any(self.challenge_password),
            "signed": self.intune_enabled,
            "one_time": self.one_time_enabled,
            "webhook": self.webhook_url is not None,
            "intune": self.intune_connection is not None,
        }
        built_in = tuple(kind for kind, is_accepted in accepted.items() if is_accepted)
        return (*built_in, *self.verifier)
