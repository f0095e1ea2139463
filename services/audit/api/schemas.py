"""What the API takes and gives; times are Unix nanoseconds of the log unless it says otherwise."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.audit.store.commands import Command, Result
from shared.log.events.commands import RevocationReason

Note = Annotated[str, Field(max_length=500, examples=["seen on site"])]
San = Annotated[str, Field(pattern=r"^(dns|rfc822|uri|ip|upn):[^\x00]+$", max_length=255)]

_Row = TypeVar("_Row", bound=BaseModel)


class Shape(BaseModel):
    """What all bodies are: closed to unknown members."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    title: str
    status: int
    detail: str


class Profiles(BaseModel):
    """Every profile, by path id."""

    profiles: list[dict[str, Any]]
    profile_count: int
    generated_at: str


class Stats(BaseModel):
    """One row a profile."""

    profiles: list[dict[str, Any]]
    generated_at: str


class Reload(Shape):
    """The profile whose files are to be reloaded."""

    path_id: Annotated[str, Field(max_length=63, examples=["corp"])]


class ReplicaResult(BaseModel):
    """One validator's answer."""

    name: str
    reloaded: bool
    error: str | None = None


class Reloaded(BaseModel):
    """What came of it."""

    reloaded: bool
    path_id: str
    reloaded_at: str
    replicas: list[ReplicaResult]


def rows_of(kind: type[_Row], rows: Iterable[Mapping[str, Any]]) -> list[_Row]:
    """Return rows of the read model as the API shows them."""
    return [kind.model_validate(row) for row in rows]


class EnrollmentRow(BaseModel):
    """An enrollment as it stands.

    Times ending in `_at` are Unix nanoseconds of the log, `not_after` Unix seconds; `sans` is a
    JSON array in a string.
    """

    enrollment: str
    profile: str
    fleet: str | None
    transaction_id: str | None
    action: str | None
    message_type: int | None
    signer_sha256: str | None
    client_address: str | None
    gateway: str | None
    device: str | None
    sans: str | None
    key_type: str | None
    key_bits: int | None
    spki_sha256: str | None
    csr_sha256: str | None
    challenge: str | None
    device_id: str | None
    claim_issuer: str | None
    claim_subject: str | None
    state: str
    reason: str | None
    detail: str | None
    fail_info: int | None
    renews: str | None
    issuer: str | None
    serial: str | None
    not_after: int | None
    operator: str | None
    requested_at: int
    held_at: int | None
    decided_at: int | None
    verdict_at: int | None
    ended_at: int | None


class EventRow(BaseModel):
    """An event as it is stored: `recorded_at` in Unix nanoseconds, the payload as JSON or text."""

    stream: str
    sequence: int
    subject: str
    type: str
    recorded_at: int
    payload: Any


class Enrollments(BaseModel):
    """A page of enrollments, newest first; `next` is the cursor of the following one."""

    enrollments: list[EnrollmentRow]
    next: str | None


class Enrollment(BaseModel):
    """One enrollment and every event of it."""

    enrollment: EnrollmentRow
    events: list[EventRow]


class Entry(BaseModel):
    """What was asked of us and what came of it; `at` in Unix nanoseconds of the log."""

    action: str | None
    at: int
    profile: str
    state: str
    reason: str | None
    device: str | None
    transaction_id: str | None
    operator: str | None
    enrollment: str


class Audit(BaseModel):
    """A page of entries, newest first; `total` of all pages together."""

    entries: list[Entry]
    total: int
    next: str | None


class Ordered(BaseModel):
    """What an operator ordered and what came of it: done, refused, or waiting for an answer.

    `at` in Unix nanoseconds of the log; `expected`, `answered` and `refused` count issuers' or
    replicas' answers, `said` is the issuer's, or of replicas the last that refused; `reason` is
    the enrollment's refusal; `note` the operator's own, a reason to revoke, or a level.
    """

    kind: Command
    at: int
    operator: str
    profile: str | None
    enrollment: str | None
    device: str | None
    about: str | None
    note: str | None
    result: Result
    reason: str | None
    detail: str | None
    expected: int | None
    answered: int
    refused: int


class Commands(BaseModel):
    """A page of commands, newest first; `next` is the cursor of the following one."""

    commands: list[Ordered]
    next: str | None


class Decision(Shape):
    """An operator's word; of a refusal the device is told the note."""

    note: Note = ""


class Done(BaseModel):
    """That an order was given, and what there is to say of it."""

    done: bool
    detail: str


class CertificateRow(BaseModel):
    """A certificate on record.

    `recorded_at` is in Unix nanoseconds of the log, the other times in Unix seconds.
    """

    issuer: str
    serial: str
    enrollment: str | None
    profile: str | None
    subject: str | None
    spki_sha256: str | None
    not_before: int | None
    not_after: int | None
    ca_spki_sha256: str | None
    renews: str | None
    recorded_at: int
    revoked_at: int | None
    revocation_reason: str | None
    revoked_by: str | None


class Certificates(BaseModel):
    """A page of certificates, newest first."""

    certificates: list[CertificateRow]
    next: str | None


class Revocation(Shape):
    """Why."""

    reason: RevocationReason = RevocationReason.UNSPECIFIED


class NewChallenge(Shape):
    """For whom: `sans` as `kind:value` (dns, rfc822, uri, ip, upn); `ttl` in seconds."""

    profile: Annotated[str, Field(max_length=63, examples=["corp"])]
    cn: Annotated[str, Field(max_length=255, examples=["printer-7"])] = ""
    sans: Annotated[list[San], Field(max_length=20, examples=[["dns:printer-7.example"]])] = []
    ttl: Annotated[int, Field(ge=1, le=3653 * 86400)] = 86400


class MadeChallenge(BaseModel):
    """The challenge, this once."""

    id: str
    challenge: str
    expires_at: int


class ChallengeRow(BaseModel):
    """A one-time challenge; times in Unix seconds, state open, used, cancelled or expired."""

    id: str
    cn: str
    sans: list[str]
    operator: str
    created_at: int
    expires_at: int
    state: str


class Challenges(BaseModel):
    """One-time challenges of a profile; times in Unix seconds."""

    challenges: list[ChallengeRow]


class DeadLetterRow(BaseModel):
    """A message that a worker gave up on; `recorded_at` in Unix nanoseconds of the log.

    `retried` is the last attempt that it was retried as; `open` whether it needs action.
    """

    stream: str
    sequence: int
    subject: str
    role: str
    deliveries: int
    recorded_at: int
    retried: int | None
    open: bool


class DeadLetters(BaseModel):
    """What workers gave up on, newest first."""

    dead_letters: list[DeadLetterRow]
