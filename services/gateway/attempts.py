"""The attempts of an enrollment that its device made, as opposed to forged ones.

Anyone who holds a gateway's bus key can append requests of their own, and a validator refuses
those that are not genuine. Such a refusal must never reach the device or hide its earlier
attempts. An attempt counts only if the device's key signed its stored message for this
transaction, and its verdict does not say that the message cannot be decrypted. Gateways decrypt a
message before they record it, so that verdict is about a forged copy.
See docs/decisions/0042-planted-attempts-are-passed-by.md.
"""

import secrets
from dataclasses import dataclass
from typing import Final

import structlog

from services.gateway.outcomes import Outcomes, enrollment_in
from shared.bus.core import Bus
from shared.bus.log import report_forgery
from shared.limits import PLANTED_ATTEMPTS
from shared.log.envelope import Stored, UnreadableEventError, authenticate, decode
from shared.log.events.base import EventPayload
from shared.log.events.enrollment import EnrollmentRejected, EnrollmentRequested
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, transaction_token
from shared.scep.algorithms import AlgorithmPolicy
from shared.scep.errors import ScepError
from shared.scep.pkimessage import read_message, verify

_log = structlog.get_logger()
_IMPLAUSIBLE: Final = 100_000  # with an hour between failures, eleven years of attempts
# The profile's policy was applied when the request was recorded. Only the signer matters here.
_ANY_ALGORITHM: Final = AlgorithmPolicy(legacy=True)


@dataclass(frozen=True, slots=True)
class Attempts:
    """An enrollment's newest genuine attempt, its stored request, and the next free number."""

    newest: EnrollmentId | None
    stored: Stored | None
    free: int


async def attempts_of(
    bus: Bus, outcomes: Outcomes, enrollment: EnrollmentId, *, thoroughly: bool = False
) -> Attempts:
    """Return an enrollment's attempts: read only the newest if it is genuine, else all in order.

    `thoroughly` always reads them all: a forged attempt may already occupy the number after the
    newest genuine one. If there are `PLANTED_ATTEMPTS` or more, the free number is random and so
    cannot be occupied in advance; a fixed bound would let forgeries lock a device out for good.
    """
    stream = enroll_stream(enrollment.shard)
    if not thoroughly and (near := await _newest(bus, outcomes, enrollment)) is not None:
        return near
    found = Attempts(None, None, 0)
    for number in range(PLANTED_ATTEMPTS):
        attempt = enrollment.at(number)
        stored = await bus.get_last_from_leader(stream, attempt.subject(Stage.REQUEST))
        if stored is None:
            return found
        if await _is_devices(bus, outcomes, attempt, stored):
            found = Attempts(attempt, stored, number + 1)
        else:
            found = Attempts(found.newest, found.stored, number + 1)
    free = PLANTED_ATTEMPTS + secrets.randbelow(_IMPLAUSIBLE - PLANTED_ATTEMPTS)
    return Attempts(found.newest, found.stored, free)


async def _newest(bus: Bus, outcomes: Outcomes, enrollment: EnrollmentId) -> Attempts | None:
    """Return what the newest attempt alone shows, or None if it is not the device's."""
    stream = enroll_stream(enrollment.shard)
    stored = await bus.get_last_from_leader(stream, enrollment.any_attempt())
    newest = enrollment_in(stored)
    if (
        stored is not None
        and newest is not None
        and newest.attempt < _IMPLAUSIBLE
        and await _is_devices(bus, outcomes, newest, stored)
    ):
        return Attempts(newest, stored, newest.attempt + 1)
    return None


async def _is_devices(bus: Bus, outcomes: Outcomes, attempt: EnrollmentId, stored: Stored) -> bool:
    """Return whether the device made this attempt, as far as is known yet; report a forgery."""
    problem = _problem(attempt, stored)
    if not problem and await _is_unopenable(bus, outcomes, attempt, stored):
        problem = "validators cannot decrypt it"
    if problem:
        report_forgery("request", stored.subject, problem)
    return not problem


def _problem(attempt: EnrollmentId, stored: Stored) -> str:
    """Return why a stored request is not from this transaction's device, "" if it is."""
    try:
        event = decode(stored.payload, stored.headers)
        if not isinstance(event, EnrollmentRequested):
            return "not a request event"
        message = read_message(event.pki_message)
        verify(message, _ANY_ALGORITHM)
    except (UnreadableEventError, ScepError):
        return "its message does not verify"
    spki = message.signer.spki
    signed_for = transaction_token(attempt.profile, message.transaction_id.value, spki)
    return "" if signed_for == attempt.transaction else "its message belongs to another transaction"


async def _is_unopenable(
    bus: Bus, outcomes: Outcomes, attempt: EnrollmentId, stored: Stored
) -> bool:
    verdict = await bus.get_last(enroll_stream(attempt.shard), attempt.subject(Stage.VERDICT))
    if verdict is None:
        return False
    try:
        trusted = outcomes.live.current.validators
        event = authenticate(verdict, trusted, Stage.VERDICT, stored.sha256())
    except UnreadableEventError:
        return False  # reported when the status is read
    return is_unopenable(event)


def is_unopenable(event: EventPayload | None) -> bool:
    """Return whether this is the verdict about a message that no honest gateway recorded."""
    return isinstance(event, EnrollmentRejected) and event.reason is Reason.BAD_MESSAGE
