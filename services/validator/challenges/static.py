"""`static`: the profile's passwords, several while they rotate. Pure."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    passed,
    refused,
)
from shared.log.reasons import Reason


@dataclass(frozen=True, slots=True)
class StaticVerifier:
    """See `Verifier`; it needs no facts but the passwords themselves."""

    passwords: tuple[str, ...] = field(repr=False)

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """See `Verifier.verify`."""
        return judge_password(asked.challenge, self.passwords)


def judge_password(given: str, passwords: Sequence[str]) -> ChallengeResult:
    """Compare with every valid value, always with all of them, in constant time."""
    encoded = given.encode("utf-8", "surrogatepass")
    matched = [hmac.compare_digest(encoded, password.encode()) for password in passwords]
    if given and any(matched):
        return ChallengeResult((passed("challenge"),))
    return refused("challenge", Reason.CHALLENGE_WRONG, "the challenge password is wrong")
