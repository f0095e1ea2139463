"""Events for operators' commands and their results."""

from enum import StrEnum
from typing import TYPE_CHECKING

from shared.log.events.base import NO_REQUEST, SignedEvent
from shared.log.stages import Stage


class RevocationReason(StrEnum):
    """Why a certificate is revoked (RFC 5280 s5.3.1).

    A command with `certificateHold` revokes the certificate until one with `removeFromCRL`.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    REMOVE_FROM_CRL = "removeFromCRL"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


class Ordered(SignedEvent, frozen=True, kw_only=True):
    """Base of operators' commands; `operator` is the operator's name as recorded in the log."""

    if TYPE_CHECKING:
        operator: str


class RevocationOrdered(Ordered, frozen=True, kw_only=True):
    """A command to revoke a certificate."""

    issuer: str
    serial: str
    attempt: int
    reason: RevocationReason
    operator: str
    request_sha256: str = NO_REQUEST


class WithdrawalOrdered(Ordered, frozen=True, kw_only=True):
    """A validator's command to revoke a certificate that its connection's service takes back.

    The service did not accept it (`cause` is "unconfirmed"), or asked for its revocation
    ("requested"). Issuers obey only for certificates that are confirmed by this connection.
    `operator` is the connection's name.
    """

    issuer: str
    serial: str
    attempt: int
    reason: RevocationReason
    operator: str
    cause: str
    request_sha256: str = NO_REQUEST


class OrphanReported(Ordered, frozen=True, kw_only=True):
    """A command to settle a possible orphan: `certificates` (DER) are to be revoked at the CA.

    If there are none, the operator found none beside the device's. `placement` is that of the
    newest suspicion that the operator knew of.
    """

    issuer: str
    key: str
    attempt: int
    placement: int
    certificates: tuple[bytes, ...]
    operator: str
    request_sha256: str = NO_REQUEST


class CommandAnswered(SignedEvent, frozen=True, kw_only=True):
    """The result of an operator's command; `request_sha256` is the command's digest."""

    request_sha256: str
    done: bool
    detail: str


class ReloadOrdered(Ordered, frozen=True, kw_only=True):
    """A command to reload a profile's anchors or its RA certificates; the subject says which.

    `replicas` are those that were running and whose answers are awaited.
    """

    profile: str
    operator: str
    replicas: tuple[str, ...] = ()
    request_sha256: str = NO_REQUEST


class RetryOrdered(Ordered, frozen=True, kw_only=True):
    """A command to retry a message that a worker gave up, as this attempt of the enrollment.

    `stream` and `sequence` locate the message that was given up.
    """

    stream: str
    sequence: int
    enrollment: str
    attempt: int
    operator: str
    request_sha256: str = NO_REQUEST


class ResumeOrdered(Ordered, frozen=True, kw_only=True):
    """A command to handle an attempt's message again because its consumer skipped it.

    `stage` is the stage that is missing: a verdict or an outcome. `number` counts the commands for
    one attempt from 0. With `give_up` the attempt ends with a signed failure.
    """

    enrollment: str
    stage: Stage
    number: int
    give_up: bool
    operator: str
    request_sha256: str = NO_REQUEST


class ChallengeCreated(Ordered, frozen=True, kw_only=True):
    """An operator created a one-time challenge; the log holds only its digest.

    `cn` and `sans` (`kind:value`), if given, bind it to a device; `expires_at` is in Unix seconds.
    """

    profile: str
    expires_at: int
    operator: str
    cn: str = ""
    sans: tuple[str, ...] = ()
    request_sha256: str = NO_REQUEST


class ChallengeCancelled(Ordered, frozen=True, kw_only=True):
    """An operator cancelled a one-time challenge."""

    profile: str
    operator: str
    request_sha256: str = NO_REQUEST


class ApiTokenCreated(Ordered, frozen=True, kw_only=True):
    """An API token was created; the event holds nothing of the token itself."""

    name: str
    level: str
    operator: str
    request_sha256: str = NO_REQUEST


class ApiTokenRevoked(Ordered, frozen=True, kw_only=True):
    """The API token of this name was revoked, with all sessions that it opened."""

    name: str
    operator: str
    request_sha256: str = NO_REQUEST
