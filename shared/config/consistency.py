"""Consistency checks across several keys of a configuration."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from shared.config.challenge_format import looks_signed
from shared.config.intune import intune_problems
from shared.config.profiles import CertificateProfileSection, ProfileSection
from shared.config.sections import AnyIssuerSection, Configuration, LocalIssuerSection
from shared.log.one_time import ONE_TIME_SHAPE
from shared.x509.name_patterns import read_san_pattern, read_subject_pattern
from shared.x509.name_templates import read_san_template, read_subject_template
from shared.x509.policies import read_policy
from shared.x509.usages import ANY_ATTRIBUTE, EC_KEY_USAGES, usage_name, usage_oids

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_MIN_SECRET = 16
_HEADER = re.compile(r"[\x20-\x7e]*")

# CAs that certify what the CSR asks for, whatever they are sent beside it.
_COPY_NAMES: Final = frozenset(
    {"openbao", "ejbca", "step-ca", "adcs", "acme", "kubernetes", "sectigo"}
)
# CAs to which no SID is sent.
_WITHOUT_SID: Final = _COPY_NAMES | {
    "aws-pca",
    "digicert",
    "google-cas",
    "entrust-ca-gateway",
    "entrust-ecs",
    "globalsign-atlas",
}
_BUILT_IN: Final = frozenset({"static", "signed", "one_time", "webhook", "intune"})


def problems(configuration: Configuration) -> Iterator[str]:
    """Yield each problem as "key: sentence"; `profile_problems` finds those of one profile."""
    yield from _issuers(configuration)
    yield from _intune(configuration)
    url = configuration.audit.expiry_webhook_url
    if url is not None and not _is_protected(url):
        yield "audit.expiry_webhook_url: must be https://, or http:// on loopback"
    gateway, default = configuration.gateway, configuration.gateway.default_profile
    if (gateway.tls_cert_path is None) != (gateway.tls_key_path is None):
        yield "gateway.tls_key_path: set both tls_cert_path and tls_key_path, or neither"
    if default is not None and default not in configuration.profiles:
        yield f"gateway.default_profile: no such profile: {default}"


def _issuers(configuration: Configuration) -> Iterator[str]:
    for name, issuer in configuration.issuers.items():
        if not isinstance(issuer, LocalIssuerSection):
            continue
        if len(issuer.ca_cert_path) != len(issuer.ca_key_path):
            yield f"issuers.{name}.ca_key_path: must have one key for each certificate"
        if (issuer.next_ca_cert_path is None) != (issuer.next_ca_key_path is None):
            yield f"issuers.{name}.next_ca_key_path: set it together with next_ca_cert_path"
        if bool(issuer.crl_partitions) != bool(issuer.crl_partition_urls):
            how = "set both crl_partitions and crl_partition_urls, or neither"
            yield f"issuers.{name}.crl_partition_urls: {how}"
        if len(set(issuer.crl_partitions)) < len(issuer.crl_partitions):
            yield f"issuers.{name}.crl_partitions: names a number twice"


def _intune(configuration: Configuration) -> Iterator[str]:
    for name, tenant in configuration.intune.items():
        certificates = tenant.client_cert_path or ()
        if len(certificates) != len(tenant.client_key_path or ()):
            yield f"intune.{name}.client_key_path: must have one key for each certificate"
        if bool(tenant.client_secret_path) == bool(certificates):
            how = "set either client_secret_path, or client_cert_path and client_key_path"
            yield f"intune.{name}.client_secret_path: {how}"
        if tenant.cloud == "china" and not (tenant.resource_url and tenant.service_hosts):
            how = 'required with cloud = "china", together with service_hosts'
            yield f"intune.{name}.resource_url: {how}"


def profile_problems(configuration: Configuration, name: str) -> Iterator[str]:
    """Yield each problem of a profile as ".key: sentence", relative to the profile's table."""
    profile = configuration.profiles[name]
    if name == "intune":
        yield ": this path ID is reserved"
    if profile.issuer_id not in configuration.issuers:
        yield f".issuer_id: no such issuer: {profile.issuer_id}"
    yield from _certificates(configuration, profile)
    if profile.mtls_enabled and profile.mtls_client_ca_trust_bundle_path is None:
        yield ".mtls_client_ca_trust_bundle_path: required with mtls_enabled"
    if len(profile.ra_cert_path) != len(profile.ra_key_path):
        yield ".ra_key_path: must have one key for each certificate"
    beside = profile.allowed_subject_attributes
    if ANY_ATTRIBUTE in beside and len(beside) > 1:
        yield '.allowed_subject_attributes: "any" cannot be combined with others'
    yield from _verifiers(profile)
    yield from _signed(profile)
    yield from _webhooks(profile)
    yield from intune_problems(configuration, profile)


def _certificates(configuration: Configuration, profile: ProfileSection) -> Iterator[str]:
    """Yield why no certificate of the profile could ever be issued."""
    certificate = configuration.certificate_profiles.get(profile.profile_id)
    issuer = configuration.issuers.get(profile.issuer_id)
    if certificate is None:
        yield f".profile_id: no such certificate profile: {profile.profile_id}"
        return
    if not _has_usable_keys(certificate):
        yield (
            f".profile_id: {profile.profile_id} allows only EC keys, and its key_usages only "
            "encipherment, which EC keys cannot do"
        )
    yield from _templates(profile, certificate)
    if issuer is not None:
        yield from _beyond_issuer(profile, certificate, issuer)


def _templates(profile: ProfileSection, certificate: CertificateProfileSection) -> Iterator[str]:
    """Yield why the names that templates build would always be refused."""
    subjects = tuple(map(read_subject_template, certificate.subject_template))
    sans = tuple(map(read_san_template, certificate.san_templates))
    if (subjects or sans) and profile.renewal_names == "any":
        yield '.renewal_names: cannot be "any" with templates: renewals keep the names'
    about = f".profile_id: {profile.profile_id} builds"
    for each in sans:
        if each.kind not in certificate.sans:
            yield f"{about} a subjectAltName of kind {each.kind}, which its sans do not allow"
    for templates, read, key in (
        (subjects, map(read_subject_pattern, certificate.subject_patterns), "subject_patterns"),
        (sans, map(read_san_pattern, certificate.san_patterns), "san_patterns"),
    ):
        allowed = {pattern.kind for pattern in read}
        for each in templates:
            if allowed and each.kind not in allowed:
                yield f"{about} a name of kind {each.kind}, which none of its {key} matches"


def _has_usable_keys(certificate: CertificateProfileSection) -> bool:
    """Return whether a key of an allowed type has at least one of the key usages."""
    has_rsa = any(kind.startswith("rsa:") for kind in certificate.key_types)
    return has_rsa or not EC_KEY_USAGES.isdisjoint(certificate.key_usages)


def _beyond_issuer(
    profile: ProfileSection, certificate: CertificateProfileSection, issuer: AnyIssuerSection
) -> Iterator[str]:
    """Yield what a certificate profile asks for that the issuer would refuse every time."""
    if certificate.backdate > issuer.max_backdate:
        yield (
            f".profile_id: backdate of {profile.profile_id}, {certificate.backdate:.0f}s, exceeds "
            f"max_backdate of issuer {profile.issuer_id}, {issuer.max_backdate:.0f}s"
        )
    signed = usage_oids(issuer.extended_key_usages)
    wanted = usage_oids(certificate.extended_key_usages)
    if missing := [usage_name(usage) for usage in wanted if usage not in signed]:
        yield (
            f".profile_id: {profile.profile_id} has extended key usages that issuer "
            f"{profile.issuer_id} does not sign: {', '.join(missing)}"
        )
    policies = (read_policy(each).oid for each in certificate.certificate_policies)
    if missing := [oid for oid in policies if oid not in issuer.certificate_policies]:
        yield (
            f".profile_id: {profile.profile_id} has certificate policies that issuer "
            f"{profile.issuer_id} does not sign: {', '.join(missing)}"
        )
    yield from _unfit_for_issuer(profile, certificate, issuer)


def _unfit_for_issuer(
    profile: ProfileSection, certificate: CertificateProfileSection, issuer: AnyIssuerSection
) -> Iterator[str]:
    """Yield what a certificate profile has that does not go with its issuer's settings or kind."""
    signs_ocsp = isinstance(issuer, LocalIssuerSection) and issuer.ocsp_validity is not None
    if profile.staple_ocsp and not signs_ocsp:
        yield f".staple_ocsp: issuer {profile.issuer_id} has no ocsp_validity"
    is_partitioned = isinstance(issuer, LocalIssuerSection) and issuer.crl_partitions
    if certificate.crl_distribution_points and is_partitioned:
        yield (
            f".profile_id: crl_distribution_points of {profile.profile_id} cannot be combined with "
            f"crl_partitions of issuer {profile.issuer_id}"
        )
    if certificate.sid_extension and not issuer.allow_sid:
        yield (
            f".profile_id: {profile.profile_id} has sid_extension, and issuer "
            f"{profile.issuer_id} does not have allow_sid"
        )
    has_templates = certificate.subject_template or certificate.san_templates
    if has_templates and issuer.kind in _COPY_NAMES:
        yield (
            f".profile_id: {profile.profile_id} has templates, and CAs of kind {issuer.kind} take "
            "the names from the CSR"
        )
    if certificate.sid_extension and issuer.kind in _WITHOUT_SID:
        yield (
            f".profile_id: {profile.profile_id} has sid_extension, and CAs of kind {issuer.kind} "
            "get no SID"
        )
    if certificate.must_staple and not certificate.ocsp and isinstance(issuer, LocalIssuerSection):
        yield (
            f".profile_id: must_staple of {profile.profile_id} requires ocsp: issuer "
            f"{profile.issuer_id} adds no OCSP URL"
        )


def _verifiers(profile: ProfileSection) -> Iterator[str]:
    """Check that the format of a challenge selects exactly one verifier."""
    passwords = [c for c in profile.challenge_password if c]
    if not profile.verifiers:
        how = "set challenge_password or enable another verifier"
        yield f".challenge_password: the profile has no verifier: {how}"
    for kind in sorted(_BUILT_IN & profile.verifier.keys()):
        how = "remove this table; its settings belong directly in the profile"
        yield f".verifier.{kind}: {kind} is built in: {how}"
    if passwords and profile.webhook_url is not None:
        yield (
            ".webhook_url: cannot be combined with challenge_password: "
            "the challenges are indistinguishable"
        )
    if profile.one_time_enabled and any(ONE_TIME_SHAPE.fullmatch(p) for p in passwords):
        yield ".challenge_password: looks like a one-time challenge"
    if profile.intune_enabled and any(map(looks_signed, passwords)):
        yield ".challenge_password: looks like a signed challenge"
    if profile.password_recipients and not passwords:
        yield ".password_recipients: requires challenge_password"


def _signed(profile: ProfileSection) -> Iterator[str]:
    if profile.device_state is not None and not profile.intune_enabled:
        yield ".device_state: requires intune_enabled"
    if not profile.intune_enabled:
        return
    if profile.device_state == "":
        yield ".device_state: must be module:attribute, not empty"
    if profile.intune_connector_cert_path is None and not profile.intune_tenant_cert_paths:
        how = "set it, or intune_tenant_cert_paths for every tenant"
        yield f".intune_connector_cert_path: required with intune_enabled: {how}"
    if profile.intune_clock_skew_tolerance >= profile.intune_challenge_validity:
        yield ".intune_clock_skew_tolerance: must be less than intune_challenge_validity"


def _webhooks(profile: ProfileSection) -> Iterator[str]:
    for key in ("webhook_url", "notify_webhook_url"):
        url = getattr(profile, key)
        if url is not None and not _is_protected(url):
            yield f".{key}: must be https://, or http:// on loopback"
    if not _HEADER.fullmatch(profile.webhook_bearer_token or ""):
        yield ".webhook_bearer_token: contains characters that are not allowed in an HTTP header"
    if profile.webhook_secret is not None and len(profile.webhook_secret) < _MIN_SECRET:
        yield f".webhook_secret: shorter than {_MIN_SECRET} characters"
    if (profile.webhook_client_cert_path is None) != (profile.webhook_client_key_path is None):
        yield ".webhook_client_key_path: set both webhook_client_cert_path and this, or neither"


def _is_protected(url: str) -> bool:
    """Return whether a URL may be posted to: https, or http on loopback; no user info."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
