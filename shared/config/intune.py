"""Consistency checks of profiles whose challenges Intune validates. Pure."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from shared.config.challenge_format import looks_encrypted
from shared.config.profiles import CertificateProfileSection, ProfileSection
from shared.config.sections import Configuration

# CAs that answer at once, or not at all.
_SYNCHRONOUS: Final = frozenset({"local", "openbao", "step-ca", "google-cas", "entrust-ca-gateway"})
_STATES: Final = frozenset(
    {
        "compliant",
        "noncompliant",
        "inGracePeriod",
        "configManager",
        "conflict",
        "error",
        "unknown",
    }
)
# Keys that mean nothing without a connection.
_ONLY_WITH: Final = (
    "intune_wait_for_success_notification",
    "intune_allow_static",
    "intune_allow_manual",
    "intune_allow_pending",
    "compliance",
    "compliance_policy",
    "compliance_grace",
    "compliance_not_found",
    "compliance_on_error",
    "sid_lookup",
)
_ONLY_WITH_COMPLIANCE: Final = (
    "compliance_policy",
    "compliance_grace",
    "compliance_not_found",
    "compliance_on_error",
)


def intune_problems(configuration: Configuration, profile: ProfileSection) -> Iterator[str]:
    """Yield each problem of a profile's use of its connection as ".key: sentence"."""
    if profile.intune_connection is None:
        for key in filter(partial(_is_set, profile), _ONLY_WITH):
            yield f".{key}: requires intune_connection"
        return
    # Only validators have the tables of connections.
    if configuration.intune and profile.intune_connection not in configuration.intune:
        yield f".intune_connection: no such connection: {profile.intune_connection}"
    yield from _admission(profile)
    yield from _issuance(configuration, profile)
    yield from _compliance(profile)
    certificate = configuration.certificate_profiles.get(profile.profile_id)
    if certificate is not None:
        yield from _sid(profile, certificate)


def _is_set(profile: ProfileSection, key: str) -> bool:
    """Return whether a key has another value than by default."""
    default = ProfileSection.model_fields[key].get_default(call_default_factory=True)
    return bool(getattr(profile, key) != default)


def _admission(profile: ProfileSection) -> Iterator[str]:
    """Yield what admits any device without a word, and renewals, which Intune does not have."""
    passwords = [each for each in profile.challenge_password if each]
    if passwords and not profile.intune_allow_static:
        yield (
            ".challenge_password: admits any device beside intune_connection: remove it, or set "
            "intune_allow_static = true"
        )
    if any(map(looks_encrypted, passwords)):
        yield ".challenge_password: looks like a challenge of Intune"
    if profile.renewal:
        yield (
            ".renewal: cannot be true with intune_connection: Intune's devices renew with a new "
            "key and a new challenge"
        )


def _issuance(configuration: Configuration, profile: ProfileSection) -> Iterator[str]:
    """Yield what would make a device wait, which Intune's devices do not."""
    if profile.approval == "manual" and not profile.intune_allow_manual:
        yield (
            '.approval: "manual" makes devices wait, which give up soon: set intune_allow_manual = '
            "true if they are to"
        )
    issuer = configuration.issuers.get(profile.issuer_id)
    may_wait = issuer is not None and issuer.kind not in _SYNCHRONOUS
    if issuer is not None and may_wait and not profile.intune_allow_pending:
        yield (
            f".issuer_id: CAs of kind {issuer.kind} may leave a request undecided, and Intune's "
            "devices give up soon: set intune_allow_pending = true if this one never does"
        )


def _compliance(profile: ProfileSection) -> Iterator[str]:
    for state in sorted(profile.compliance_policy.keys() - _STATES):
        yield f".compliance_policy: no such state: {state}; known: {', '.join(sorted(_STATES))}"
    if profile.compliance == "entra" and profile.compliance_grace:
        yield '.compliance_grace: cannot be combined with compliance = "entra"'
    if profile.compliance != "off":
        return
    for key in filter(partial(_is_set, profile), _ONLY_WITH_COMPLIANCE):
        yield f".{key}: requires compliance"


def _sid(profile: ProfileSection, certificate: CertificateProfileSection) -> Iterator[str]:
    if profile.sid_lookup != "off" and not certificate.sid_extension:
        yield f".sid_lookup: {profile.profile_id} has no sid_extension"
    if profile.sid_lookup == "user" and "upn" not in certificate.sans:
        yield f".sid_lookup: the sans of {profile.profile_id} do not allow the UPN to look up"
