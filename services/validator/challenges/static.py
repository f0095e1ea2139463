"""`static`: the profile's passwords, more than one during a rotation."""

from dataclasses import dataclass, field
from typing import Final

from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.once import OnceVerifier
from services.validator.challenges.password import check_password
from services.validator.challenges.verifier import ChallengeRequest, ChallengeResult, Verifier
from shared.config.profiles import ProfileSection
from shared.config.sections import Configuration

STATIC: Final = "static"


@dataclass(frozen=True, slots=True)
class StaticVerifier:
    """See `Verifier`; needs nothing but the passwords."""

    passwords: tuple[str, ...] = field(repr=False)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`."""
        return check_password(asked.challenge, self.passwords)


@dataclass(frozen=True)
class StaticAccess:
    """See `PreparedVerifier`."""

    passwords: tuple[str, ...] = field(default=(), repr=False)
    asks_outside: bool = False

    def verifier(self, context: VerifierContext) -> Verifier:
        """See `PreparedVerifier.verifier`."""
        return OnceVerifier(StaticVerifier(self.passwords), context.records, binds_first=False)


def _prepare(configuration: Configuration, section: ProfileSection, now: float) -> StaticAccess:
    del configuration, now
    return StaticAccess(tuple(password for password in section.challenge_password if password))


KIND: Final = VerifierKind(STATIC, _prepare)
