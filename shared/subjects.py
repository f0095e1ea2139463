"""The subjects of the enrollment log: what each is about, and how strings become tokens. Pure."""

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_TOKEN_CHARS: Final = 26
# One way to write a number: else two requests could share one verdict.
_ATTEMPT: Final = re.compile("0|[1-9][0-9]{0,8}")


class Stage(StrEnum):
    """The last token of an enrollment's subjects; each has one writer role."""

    REQUEST = "request"
    VERDICT = "verdict"
    OUTCOME = "outcome"


@dataclass(frozen=True, slots=True)
class EnrollmentId:
    """One attempt of one enrollment; its subjects differ in the stage alone."""

    shard: str
    profile: str
    transaction: str
    csr: str
    attempt: int

    def subject(self, stage: Stage) -> str:
        """The subject of this stage's event."""
        return f"{self.prefix()}.{stage}"

    def prefix(self) -> str:
        """What the subjects of all stages begin with."""
        return f"enroll.{self.shard}.{self.profile}.{self.transaction}.{self.csr}.{self.attempt}"

    def any_attempt(self) -> str:
        """The wildcard over the requests of every attempt."""
        return f"enroll.{self.shard}.{self.profile}.{self.transaction}.{self.csr}.*.request"

    def at(self, attempt: int) -> "EnrollmentId":
        """The same enrollment, another attempt."""
        return EnrollmentId(self.shard, self.profile, self.transaction, self.csr, attempt)


def any_request(shard: str, profile: str, transaction: str) -> str:
    """The wildcard over every request of a transaction."""
    return f"enroll.{shard}.{profile}.{transaction}.*.*.request"


def parse_subject(subject: str) -> tuple[EnrollmentId, Stage]:
    """The enrollment and stage that a subject names; ValueError where it names none."""
    prefix, shard, profile, transaction, csr, attempt, stage = subject.split(".")
    if prefix != "enroll" or not _ATTEMPT.fullmatch(attempt):
        raise ValueError("not an enrollment's subject")
    return EnrollmentId(shard, profile, transaction, csr, int(attempt)), Stage(stage)


def token(*parts: bytes) -> str:
    """A subject token for strings of clients: base32 of a digest of length-prefixed parts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return base64.b32encode(state.digest()).decode("ascii")[:_TOKEN_CHARS].lower()


def transaction_token(profile: str, transaction_id: bytes, signer_spki: bytes) -> str:
    """The token of a transaction: its profile, transactionID and signer key."""
    return token(profile.encode(), transaction_id, hashlib.sha256(signer_spki).digest())


def csr_token(certification_request_info: bytes) -> str:
    """The token of a CSR: its CertificationRequestInfo, not its signature."""
    return token(certification_request_info)
