"""What every verifier is asked and answers, and which of them handles a request. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.validator.facts import DecryptedRequest
from services.validator.gates import Refusal
from shared.limits import shortened
from shared.log.events.enrollment import GateResult
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from shared.log.subjects import EnrollmentId

NONE: Final = "none"


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


class Verifier(Protocol):
    """Verifies challenges of one kind. It may be asked twice about one request, with one result."""

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """Return whether this challenge admits this request.

        Raises `BusUnavailableError` where the log cannot be read or written now: the request is
        delivered again.
        """


class Recogniser(Protocol):
    """What routing needs to know of a kind."""

    @property
    def kind(self) -> str:
        """Its name."""

    @property
    def recognises(self) -> Callable[[str], bool] | None:
        """How its challenges are told by their format; None for a kind that takes what is left."""


def route(challenge: str, kinds: Sequence[Recogniser]) -> str:
    """Return the kind that handles a challenge: the format selects it where there is a choice.

    The last kind left gets the challenge whatever its format. `NONE` where there is no kind.
    """
    left = list(kinds)
    for each in kinds:
        if each.recognises is None or len(left) == 1:
            continue
        if each.recognises(challenge):
            return each.kind
        left.remove(each)
    return left[0].kind if left else NONE


def passed(gate: str, detail: str = "") -> GateResult:
    """A gate that opened, and what it compared."""
    return GateResult(gate=gate, passed=True, detail=shortened(detail))


def refused(gate: str, reason: Reason, detail: str, compared: str = "") -> ChallengeResult:
    """A gate that did not: a sentence for people, and what was compared, for the record."""
    told = f"{detail} ({compared})" if compared else detail
    result = GateResult(gate=gate, passed=False, detail=shortened(told))
    return ChallengeResult((result,), Refusal(reason, detail))
