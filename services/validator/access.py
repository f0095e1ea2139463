"""How a profile admits requests: its verifiers as configured, and where results are sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.validator.challenges.guarded import GuardedVerifier
from services.validator.challenges.intune import IntuneAccess
from services.validator.challenges.kind import (
    EnabledVerifier,
    PreparedVerifier,
    VerifierContext,
    VerifierKind,
)
from services.validator.challenges.registry import VERIFIERS, find_kind, is_built_in
from services.validator.challenges.signed import SIGNED, SignedAccess
from services.validator.challenges.verifier import INTUNE, Verifier
from services.validator.challenges.webhook import read_endpoint
from services.validator.microsoft.connection import TenantConnection
from shared.config.load import SettingsError
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.runtime.endpoint import Endpoint
from shared.x509.name_templates import read_san_template, read_subject_template

_ORDER: Final = tuple(each.kind for each in VERIFIERS)


@dataclass(frozen=True)
class Access:
    """A profile's verifiers, those of packages first; `notify` is where results are sent."""

    enabled: tuple[EnabledVerifier, ...] = ()
    notify: Endpoint | None = None

    @property
    def asks_outside(self) -> bool:
        """Whether a decision may wait for another service's answer."""
        return any(each.prepared.asks_outside for each in self.enabled)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of challenges that the profile accepts."""
        return tuple(each.kind.kind for each in self.enabled)

    @property
    def signed(self) -> SignedAccess | None:
        """What signed challenges are verified with; None if the profile does not accept them."""
        found = (each.prepared for each in self.enabled if each.kind.kind == SIGNED)
        return next((each for each in found if isinstance(each, SignedAccess)), None)

    @property
    def tenant(self) -> TenantConnection | None:
        """The connection by which Intune is asked; None if the profile has none."""
        found = (each.prepared for each in self.enabled if each.kind.kind == INTUNE)
        return next((each.tenant for each in found if isinstance(each, IntuneAccess)), None)

    def with_prepared(self, kind: str, prepared: PreparedVerifier) -> "Access":
        """Return a copy in which one kind has another configuration."""
        enabled = tuple(
            replace(each, prepared=prepared) if each.kind.kind == kind else each
            for each in self.enabled
        )
        return replace(self, enabled=enabled)


def verifiers(access: Access, context: VerifierContext) -> Mapping[str, Verifier]:
    """Return the verifiers of a profile by kind."""
    return {each.kind.kind: _verifier(each, context) for each in access.enabled}


def _verifier(enabled: EnabledVerifier, context: VerifierContext) -> Verifier:
    verifier, kind = enabled.prepared.verifier(context), enabled.kind.kind
    if is_built_in(kind):
        return verifier
    return GuardedVerifier(verifier, kind, enabled.claims)


def read_access(configuration: Configuration, section: ProfileSection, now: float) -> Access:
    """Read the files of a profile's verifiers; raises `SettingsError` naming the wrong one."""
    names = sorted(section.verifiers, key=lambda n: _ORDER.index(n) if n in _ORDER else -1)
    kinds = [find_kind(name) for name in names]
    unrecognised = [each.kind for each in kinds if each.recognises is None]
    if len(unrecognised) > 1:
        listed = ", ".join(unrecognised)
        raise SettingsError(
            f"these verifiers have no distinguishing format and cannot be combined: {listed}"
        )
    _check_claims(configuration, section, kinds)
    enabled = (
        EnabledVerifier(k, _prepared(k, configuration, section, now), k.claims(section))
        for k in kinds
    )
    notify = read_endpoint(configuration, section, section.notify_webhook_url)
    return Access(tuple(enabled), notify)


def renewal_needs_challenge(section: ProfileSection) -> bool:
    """Return the configured value, or by default whether an enabled kind has `on_renewal`."""
    if section.renewal_challenge is not None:
        return section.renewal_challenge
    return any(find_kind(name).on_renewal for name in section.verifiers)


def _check_claims(
    configuration: Configuration, section: ProfileSection, kinds: Sequence[VerifierKind]
) -> None:
    """Reject names that could never be built, because a verifier does not prove their claims."""
    certificate = configuration.certificate_profiles[section.profile_id]
    templates = [
        *map(read_subject_template, certificate.subject_template),
        *map(read_san_template, certificate.san_templates),
    ]
    wanted = {claim for each in templates for claim in each.claims}
    if certificate.sid_extension:
        wanted.add("sid")
    for kind in kinds:
        if missing := sorted(wanted - kind.claims(section)):
            raise SettingsError(
                f"profile_id: {section.profile_id} is built from {', '.join(missing)}, which the "
                f"verifier {kind.kind} does not prove"
            )
    if certificate.sid_extension and section.renews and not renewal_needs_challenge(section):
        raise SettingsError(
            "renewal_challenge: required with sid_extension: each SID comes from a new look-up"
        )


def _prepared(
    kind: VerifierKind, configuration: Configuration, section: ProfileSection, now: float
) -> PreparedVerifier:
    try:
        return kind.prepare(configuration, section, now)
    except SettingsError:
        raise
    except Exception as error:
        detail = f"cannot be prepared: {type(error).__name__}"
        raise SettingsError(f"verifier.{kind.kind}: {detail}") from error
