"""The interface of challenge verifiers: what one kind of challenge consists of.

A kind is one module with a `VerifierKind`. The built-in ones are listed in `registry.VERIFIERS`; a
package adds its own with an entry point in the group `scepstream.verifiers`, whose name is the
kind. A profile enables a kind with a table of its options: `[profiles.NAME.verifier.KIND]`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.validator.challenges.records import Records
from services.validator.challenges.verifier import Verifier
from services.validator.microsoft.calls import Microsoft
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.envelope import Trusted
from shared.runtime.process import now


@dataclass(frozen=True)
class VerifierContext:
    """What a verifier may use: the records of used challenges, and the operators' keys.

    `connections` are those to tenants of Intune, by name. `clock` returns Unix seconds.
    """

    profile: str
    records: Records
    operators: Trusted
    connections: Mapping[str, Microsoft] = field(default_factory=dict)
    clock: Callable[[], float] = now


class PreparedVerifier(Protocol):
    """The configuration of one kind in one profile, with its files read."""

    @property
    def asks_outside(self) -> bool:
        """Whether a decision may wait for another service's answer."""

    def verifier(self, context: VerifierContext) -> Verifier:
        """Return the verifier; called once each time the configuration is read."""


def proves_nothing(section: ProfileSection) -> frozenset[str]:
    """Return no claims: the kind admits devices without saying anything about them."""
    del section
    return frozenset()


@dataclass(frozen=True)
class VerifierKind:
    """One kind of challenge.

    `kind` names it in the configuration, in events and in metrics. `prepare` reads its files and
    raises `SettingsError`; its last argument is the time in Unix seconds. `recognises` returns
    whether a challenge has this kind's format; a kind without it gets the challenges that no other
    kind recognises. `on_renewal`: renewals need a challenge too, unless `renewal_challenge` says
    otherwise. `claims` returns the names of the claims (`name_templates.CLAIMS`) that the kind may
    prove about a device of a profile; others that it returns are ignored.
    """

    kind: str
    prepare: Callable[[Configuration, ProfileSection, float], PreparedVerifier]
    recognises: Callable[[str], bool] | None = None
    on_renewal: bool = False
    claims: Callable[[ProfileSection], frozenset[str]] = proves_nothing


@dataclass(frozen=True)
class EnabledVerifier:
    """A kind that a profile accepts, with its configuration, and the claims it may prove there."""

    kind: VerifierKind
    prepared: PreparedVerifier
    claims: frozenset[str] = frozenset()
