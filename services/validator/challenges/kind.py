"""What one kind of challenge consists of: the seam for verifiers.

A kind is one module with a `VerifierKind`. The built-in ones stand in `registry.VERIFIERS`; a
package adds its own with an entry point of the group `scepstream.verifiers`, whose name is the
kind. A profile enables it with a table of its options: `[profiles.NAME.verifier.KIND]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.validator.challenges.records import Records
from services.validator.challenges.verifier import Verifier
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration
from shared.log.envelope import Trusted


@dataclass(frozen=True)
class VerifierContext:
    """What a verifier may use: the records of spent challenges, and the keys of operators."""

    profile: str
    records: Records
    operators: Trusted


class PreparedVerifier(Protocol):
    """The configuration of one kind in one profile, with its files read."""

    @property
    def asks_outside(self) -> bool:
        """Whether a decision may wait for the answer of another service."""

    def verifier(self, context: VerifierContext) -> Verifier:
        """Return the verifier; called once for each configuration that is read."""


@dataclass(frozen=True)
class VerifierKind:
    """One kind of challenge.

    `kind` names it in the configuration, in events and in metrics. `prepare` reads its files and
    raises `SettingsError`; the time is in Unix seconds. `recognises` tells its challenges by their
    format; a kind without it gets those that no other kind recognises. `on_renewal`: renewals need
    a challenge too, unless `renewal_challenge` says otherwise.
    """

    kind: str
    prepare: Callable[[Configuration, ProfileSection, float], PreparedVerifier]
    recognises: Callable[[str], bool] | None = None
    on_renewal: bool = False


@dataclass(frozen=True)
class EnabledVerifier:
    """A kind that a profile accepts."""

    kind: VerifierKind
    prepared: PreparedVerifier
