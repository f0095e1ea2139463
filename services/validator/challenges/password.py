"""Challenge passwords, compared in constant time. Pure."""

import hmac
from collections.abc import Sequence

from services.validator.challenges.verifier import ChallengeResult, passed, refused
from shared.log.reasons import Reason


def check_password(given: str, passwords: Sequence[str]) -> ChallengeResult:
    """Compare with every valid password in constant time, without stopping at a match."""
    encoded = given.encode("utf-8", "surrogatepass")
    matched = [hmac.compare_digest(encoded, password.encode()) for password in passwords]
    if given and any(matched):
        return ChallengeResult((passed("challenge"),))
    return refused("challenge", Reason.CHALLENGE_WRONG, "the challenge password is wrong")
