"""Request and response bodies of the API.

Times are Unix nanoseconds of the log unless stated otherwise.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from services.audit.api.tenants import TenantState
from services.audit.query.life import CertificateState
from services.audit.store.commands import Command, Result
from shared.log.events.commands import RevocationReason

Note = Annotated[str, Field(max_length=500, examples=["seen on site"])]
San = Annotated[str, Field(pattern=r"^(dns|rfc822|uri|ip|upn):[^\x00]+$", max_length=255)]

_Row = TypeVar("_Row", bound=BaseModel)


class RequestBody(BaseModel):
    """Base of request bodies: rejects unknown members."""

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
    """One row per profile."""

    profiles: list[dict[str, Any]]
    generated_at: str


class Revocations(BaseModel):
    """The pull of revocations: when the last pass ended, what is open, and its error or ""."""

    pulled_at: int | None
    open: int
    error: str


class TenantRow(BaseModel):
    """A connection to a tenant of Intune, as all validators together report it.

    Times are Unix seconds, null for never or unknown. `advice` says what to do. `credential` counts
    from 1. `calls` counts calls to Microsoft by result since the validators started. `agree`:
    all replicas have the same tenant and credential. `waiting` certificates are withheld until
    Intune accepts them. Counts of the last 24 hours begin with a whole hour; `refused_24h` is by
    reason.
    """

    connection: str
    state: TenantState
    advice: str
    tenant: str | None
    cloud: str | None
    credential_kind: str | None
    credential: int | None
    credential_not_after: int | None
    credential_days: int | None
    token_at: int | None
    token_error: str
    discovered_at: int | None
    last_ok: int | None
    last_error: str
    last_error_at: int | None
    breaker_until: int | None
    throttled_until: int | None
    calls: dict[str, int]
    replicas: list[str]
    agree: bool
    profiles: list[str]
    revocations: Revocations
    waiting: int
    issued_24h: int
    not_accepted_24h: int
    refused_24h: dict[str, int]


class Tenants(BaseModel):
    """The connections to tenants of Intune, by name."""

    tenants: list[TenantRow]
    generated_at: str


class Reload(RequestBody):
    """The profile whose files are reloaded."""

    path_id: Annotated[str, Field(max_length=63, examples=["corp"])]


class ReplicaResult(BaseModel):
    """The result of one validator or gateway."""

    name: str
    reloaded: bool
    error: str | None = None


class Reloaded(BaseModel):
    """The result of a reload, by replica."""

    reloaded: bool
    path_id: str
    reloaded_at: str
    replicas: list[ReplicaResult]


def rows_of(kind: type[_Row], rows: Iterable[Mapping[str, Any]]) -> list[_Row]:
    """Convert rows of the read model to API rows."""
    return [kind.model_validate(row) for row in rows]


class EnrollmentRow(BaseModel):
    """The current state of an enrollment.

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
    """A stored event. `recorded_at` is in Unix nanoseconds; `payload`: an object, or null."""

    stream: str
    sequence: int
    subject: str
    type: str
    recorded_at: int
    payload: Any


class Enrollments(BaseModel):
    """A page of enrollments, newest first; `next` is the cursor of the next page."""

    enrollments: list[EnrollmentRow]
    next: str | None


class Enrollment(BaseModel):
    """An enrollment and all its events."""

    enrollment: EnrollmentRow
    events: list[EventRow]


class Entry(BaseModel):
    """A request and its result; `at` is in Unix nanoseconds of the log."""

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
    """A page of entries, newest first; `total` counts the entries of all pages."""

    entries: list[Entry]
    total: int
    next: str | None


class CommandRow(BaseModel):
    """A command, of an operator or the audit service: done, refused, or waiting for an answer.

    `at` is in Unix nanoseconds of the log. `expected`, `answered` and `refused` count the answers
    of issuers or replicas. `detail` is the issuer's answer, or that of the last replica that
    refused. `reason` is why the enrollment was refused. `note` is the operator's note, a revocation
    reason, a challenge's CN, a token's level, or the stage that is resumed.
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
    """A page of commands, newest first; `next` is the cursor of the next page."""

    commands: list[CommandRow]
    next: str | None


class Decision(RequestBody):
    """An operator's decision. If it is a denial, the note is sent to the device."""

    note: Note = ""


class Done(BaseModel):
    """Confirmation of a command, with details."""

    done: bool
    detail: str


class CertificateRow(BaseModel):
    """A recorded certificate.

    `recorded_at` and `superseded_at` are in Unix nanoseconds of the log, the other times in Unix
    seconds. `superseded_by` is the serial number of its newest renewal. `not_renewed`: it is valid,
    but its device should have renewed it by now.
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
    superseded_by: str | None
    superseded_at: int | None
    state: CertificateState
    not_renewed: bool


class Certificates(BaseModel):
    """A page of certificates; `next` is the cursor of the next page."""

    certificates: list[CertificateRow]
    next: str | None


class Revocation(RequestBody):
    """The reason of a revocation."""

    reason: RevocationReason = RevocationReason.UNSPECIFIED


class NewChallenge(RequestBody):
    """Parameters of a new challenge.

    `sans` are `kind:value` with kind dns, rfc822, uri, ip or upn; `ttl` is in seconds.
    """

    profile: Annotated[str, Field(max_length=63, examples=["corp"])]
    cn: Annotated[str, Field(max_length=255, examples=["printer-7"])] = ""
    sans: Annotated[list[San], Field(max_length=20, examples=[["dns:printer-7.example"]])] = []
    ttl: Annotated[int, Field(ge=1, le=3653 * 86400)] = 86400


class CreatedChallenge(BaseModel):
    """A new challenge, which cannot be retrieved again; `expires_at` is in Unix seconds."""

    id: str
    challenge: str
    expires_at: int


class ChallengeRow(BaseModel):
    """A one-time challenge. Times are Unix seconds; state is open, used, cancelled or expired."""

    id: str
    cn: str
    sans: list[str]
    operator: str
    created_at: int
    expires_at: int
    state: str


class Challenges(BaseModel):
    """The one-time challenges of a profile."""

    challenges: list[ChallengeRow]


class DeadLetterRow(BaseModel):
    """A message that a worker gave up on.

    `recorded_at` is in Unix nanoseconds of the log, `retried` the number of the last attempt that
    it was retried as, counted from 0 as in subjects; `open` says whether it needs action.
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
    """Dead letters, newest first."""

    dead_letters: list[DeadLetterRow]


class RateLimitedRow(BaseModel):
    """A device with signed challenges that hit its enrollment limit.

    `claim_subject` and `claim_issuer` identify it. `device` (the CSR's subject), `device_id` (the
    GUID in the CSR's IntuneDeviceId URI), `detail` and `enrollment` are those of its last
    refusal, at `last_at`.
    """

    profile: str
    claim_issuer: str | None
    claim_subject: str | None
    device_id: str | None
    device: str | None
    detail: str | None
    enrollment: str
    last_at: int
    refusals: int


class RateLimitedDevices(BaseModel):
    """Rate-limited devices since a time, those with most refusals first.

    `is_complete` is false if there were too many refusals to count all of them.
    """

    devices: list[RateLimitedRow]
    since: int
    is_complete: bool


class OrphanRow(BaseModel):
    """An order at an external CA whose answer was lost.

    The CA may have a certificate that no device got. Times are Unix nanoseconds of the log;
    `serials` are those that were revoked at the CA.
    """

    issuer: str
    key: str
    enrollment: str
    device: str | None
    profile: str | None
    placement: int | None
    spki_sha256: str | None
    suspected_at: int | None
    settled_at: int | None
    serials: list[str]
    detail: str | None
    operator: str | None
    open: bool


class Orphans(BaseModel):
    """Possible orphans: open ones first, then newest first."""

    orphans: list[OrphanRow]


class OrphanReport(RequestBody):
    """What an operator found at the CA beside the device's certificate, in PEM; "" if nothing."""

    certificates: Annotated[str, Field(max_length=90_000)] = ""
