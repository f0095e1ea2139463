"""Events of what operators order, and what is answered to them."""

from enum import StrEnum
from typing import TYPE_CHECKING

from shared.log.events.base import NO_REQUEST, SignedEvent
from shared.log.stages import Stage


class RevocationReason(StrEnum):
    """Why a certificate is revoked (RFC 5280 s5.3.1).

    An order with `certificateHold` revokes until one with `removeFromCRL` releases it again.
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
    """What an operator orders; `operator` is their name as the log has it."""

    if TYPE_CHECKING:
        operator: str


class RevocationOrdered(Ordered, frozen=True, kw_only=True):
    """An operator wants a certificate revoked."""

    issuer: str
    serial: str
    attempt: int
    reason: RevocationReason
    operator: str
    request_sha256: str = NO_REQUEST


class CommandAnswered(SignedEvent, frozen=True, kw_only=True):
    """What became of an operator's order; `request_sha256` is of the order."""

    request_sha256: str
    done: bool
    detail: str


class ReloadOrdered(Ordered, frozen=True, kw_only=True):
    """A command to reload a profile's anchors or its RA certificates; the subject says which.

    `replicas` are those that ran then, and whose answers are waited for.
    """

    profile: str
    operator: str
    replicas: tuple[str, ...] = ()
    request_sha256: str = NO_REQUEST


class RetryOrdered(Ordered, frozen=True, kw_only=True):
    """A command to retry what a worker gave up on, as this attempt.

    `stream` and `sequence` are those of the message given up on.
    """

    stream: str
    sequence: int
    enrollment: str
    attempt: int
    operator: str
    request_sha256: str = NO_REQUEST


class ResumeOrdered(Ordered, frozen=True, kw_only=True):
    """The message that an attempt waits for is handled again: its consumer passed it over.

    `stage` is the stage that is missing: a verdict or an outcome. `number` counts the orders for
    one attempt from 0. With `give_up` the attempt ends with a signed failure.
    """

    enrollment: str
    stage: Stage
    number: int
    give_up: bool
    operator: str
    request_sha256: str = NO_REQUEST


class ChallengeCreated(Ordered, frozen=True, kw_only=True):
    """An operator made a one-time challenge; only its digest stands on the log.

    `cn` and `sans` (`kind:value`) bind it to a device where they are given; `expires_at` is in
    Unix seconds.
    """

    profile: str
    expires_at: int
    operator: str
    cn: str = ""
    sans: tuple[str, ...] = ()
    request_sha256: str = NO_REQUEST


class ChallengeCancelled(Ordered, frozen=True, kw_only=True):
    """An operator took a one-time challenge back."""

    profile: str
    operator: str
    request_sha256: str = NO_REQUEST


class ApiTokenCreated(Ordered, frozen=True, kw_only=True):
    """Somebody can use the operators' API from now on; of their token nothing stands here."""

    name: str
    level: str
    operator: str
    request_sha256: str = NO_REQUEST


class ApiTokenRevoked(Ordered, frozen=True, kw_only=True):
    """The token of this name is good no more, nor is a session that it opened."""

    name: str
    operator: str
    request_sha256: str = NO_REQUEST
