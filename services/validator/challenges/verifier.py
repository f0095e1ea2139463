"""What every verifier is asked and answers, and which of them judges a request. Pure."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from services.validator.facts import DecryptedRequest
from services.validator.gates import Refusal
from shared.config.challenge_format import looks_signed
from shared.limits import PROFILE_PLACES, shortened
from shared.log.events.enrollment import GateResult
from shared.log.events.state import Claim
from shared.log.one_time import ONE_TIME, ONE_TIME_SHAPE
from shared.log.reasons import Reason
from shared.log.subjects import EnrollmentId

STATIC: Final = "static"
SIGNED: Final = "signed"
WEBHOOK: Final = "webhook"


@dataclass(frozen=True, slots=True)
class ChallengeRequest:
    """A request that wants in: what it is, what it brings, and when it was asked (Unix s).

    `request_sha256` names the stored request event; `existing` is the serial of the certificate
    that the key has already and that would be the answer.
    """

    enrollment: EnrollmentId
    request_sha256: str
    transaction_id: str
    opened: DecryptedRequest
    asked_at: int
    existing: str = ""

    @property
    def challenge(self) -> str:
        """The challengePassword; "" where there is none."""
        return self.opened.csr.challenge or ""


@dataclass(frozen=True, slots=True)
class ChallengeResult:
    """What a verifier says: its gates up to the first that refused, and who vouched."""

    gates: tuple[GateResult, ...]
    refusal: Refusal | None = None
    claim: Claim | None = None


@dataclass
class Places:
    """How many requests of one profile may wait for somebody outside at once.

    One who answers slowly must not fill the validator with waiting requests: other profiles share
    it.
    """

    most: int = PROFILE_PLACES
    _taken: int = 0

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Take a place for the length of a block; False where none is free."""
        free = self._taken < self.most
        self._taken += free
        try:
            yield free
        finally:
            self._taken -= free


class Verifier(Protocol):
    """Judges challenges of one kind. What it writes it must bear to write twice."""

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """Whether this challenge lets this request in; `BusUnavailableError` to be asked again."""


def route(challenge: str, kinds: Collection[str]) -> str:
    """The one verifier that judges: by the challenge's shape, where there is a choice.

    A one-time challenge is known by its form, a token by length and dots; what is neither goes to
    the password verifier, or where there is none to the one that is left.
    """
    left = [kind for kind in (ONE_TIME, SIGNED, STATIC, WEBHOOK) if kind in kinds]
    if ONE_TIME in left and len(left) > 1:
        if ONE_TIME_SHAPE.fullmatch(challenge):
            return ONE_TIME
        left.remove(ONE_TIME)
    if SIGNED in left and len(left) > 1:
        if looks_signed(challenge):
            return SIGNED
        left.remove(SIGNED)
    return left[0] if left else STATIC


def passed(gate: str, detail: str = "") -> GateResult:
    """A gate that opened, and what it compared."""
    return GateResult(gate=gate, passed=True, detail=shortened(detail))


def refused(gate: str, reason: Reason, detail: str, compared: str = "") -> ChallengeResult:
    """A gate that did not: a sentence for people, and what was compared, for the record."""
    told = f"{detail} ({compared})" if compared else detail
    result = GateResult(gate=gate, passed=False, detail=shortened(told))
    return ChallengeResult((result,), Refusal(reason, detail))
