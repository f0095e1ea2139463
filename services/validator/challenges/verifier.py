"""What verifiers receive and return, and which of them handles a request. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from services.validator.facts import DecryptedRequest
from services.validator.gates import Refusal
from shared.limits import shortened
from shared.log.events.enrollment import GateResult
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from shared.log.subjects import EnrollmentId
from shared.x509.name_templates import Claims

NONE: Final = "none"
INTUNE: Final = "intune"


@dataclass(frozen=True, slots=True)
class ChallengeRequest:
    """A request whose challenge is to be verified; `asked_at` is when it was stored (Unix s).

    `request_sha256` identifies the stored request event. `existing` is the serial number of the
    certificate that the key already has and that would be the answer.
    """

    enrollment: EnrollmentId
    request_sha256: str
    transaction_id: str
    opened: DecryptedRequest
    asked_at: int
    existing: str = ""

    @property
    def challenge(self) -> str:
        """The challengePassword, "" if there is none."""
        return self.opened.csr.challenge or ""


@dataclass(frozen=True, slots=True)
class ChallengeResult:
    """What a verifier returns: its gates up to the first refusal, and who vouched.

    `claims` is what it proved about the device, by name, for the names of the certificate.
    """

    gates: tuple[GateResult, ...]
    refusal: Refusal | None = None
    claim: Claim | None = None
    claims: Claims = field(default_factory=dict)


class Verifier(Protocol):
    """Verifies challenges of one kind; asked twice about a request, it returns the same result."""

    async def verify(self, asked: ChallengeRequest) -> ChallengeResult:
        """Return whether this challenge admits this request.

        Raises `BusUnavailableError` if the log cannot be read or written now; the request is then
        redelivered.
        """


class Recogniser(Protocol):
    """What routing needs to know about a kind."""

    @property
    def kind(self) -> str:
        """The kind's name."""

    @property
    def recognises(self) -> Callable[[str], bool] | None:
        """Tests a challenge for this kind's format; None for a kind that takes whatever is left."""


def route(challenge: str, kinds: Sequence[Recogniser]) -> str:
    """Return the kind that handles a challenge; its format selects one if there are several.

    The last kind that is left gets the challenge whatever its format. Returns `NONE` if there are
    no kinds.
    """
    left = list(kinds)
    for each in kinds:
        if each.recognises is None or len(left) == 1:
            continue
        if each.recognises(challenge):
            return each.kind
        left.remove(each)
    return left[0].kind if left else NONE


def intune_claim(connection: str) -> str:
    """Return the issuer of a claim that this connection's Intune made."""
    return f"{INTUNE}:{connection}"


def connection_of(claim: Claim | None) -> str:
    """Return the connection whose Intune vouched for a device, "" if none did."""
    kind, _, name = claim.issuer.partition(":") if claim is not None else ("", "", "")
    return name if kind == INTUNE else ""


def passed(gate: str, detail: str = "") -> GateResult:
    """Return a passed gate; `detail` says what it compared."""
    return GateResult(gate=gate, passed=True, detail=shortened(detail))


def refused(gate: str, reason: Reason, detail: str, compared: str = "") -> ChallengeResult:
    """Return a refusal: `detail` is a sentence for people, `compared` is only for the record."""
    told = f"{detail} ({compared})" if compared else detail
    result = GateResult(gate=gate, passed=False, detail=shortened(told))
    return ChallengeResult((result,), Refusal(reason, detail))
