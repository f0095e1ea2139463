"""Retry of dead letters: an enrollment as its next attempt, a revocation as a new command."""

from typing import Final

from services.audit.commands.context import (
    CommandError,
    ConflictError,
    NotFoundError,
    OperatorContext,
)
from services.audit.commands.revoke import revoke_certificate
from shared.bus.log import read_authentic, read_stage
from shared.log.catalog import DEAD_LETTER, RETRY
from shared.log.envelope import (
    Message,
    UnreadableEventError,
    decode,
)
from shared.log.events.base import EventPayload
from shared.log.events.commands import RetryOrdered, RevocationOrdered, WithdrawalOrdered
from shared.log.events.enrollment import CertificateIssued, EnrollmentRejected, IssuanceFailed
from shared.log.events.state import DeadLetter
from shared.log.reasons import Reason
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import DEAD_LETTERS, OPS, enroll_stream
from shared.log.subjects import EnrollmentId, parse_subject, retry_command

_ANSWER_SECONDS: Final = 10.0
_WITHDRAWAL: Final = "ops.withdraw."
_RETRYABLE: Final[dict[str, frozenset[Stage]]] = {
    Role.VALIDATOR: frozenset({Stage.REQUEST, Stage.DECISION}),
    Role.ISSUER: frozenset({Stage.VERDICT}),
}


async def retry(context: OperatorContext, stream: str, sequence: int) -> str:
    """Retry the message that was given up at this place of the log; return the result as text.

    Raises `NotFoundError` if there is no such dead letter, `ConflictError` if its enrollment did
    not end for that reason.
    """
    letter = await _letter(context, stream, sequence)
    if letter.subject.startswith(("ops.revoke.", _WITHDRAWAL)):
        return await _revoke(context, letter)
    try:
        enrollment, stage = parse_subject(letter.subject)
    except ValueError:
        raise ConflictError(f"{letter.subject}: cannot be retried") from None
    if stage not in _RETRYABLE.get(letter.role, frozenset()):
        raise ConflictError("this dead letter is a notification, which cannot be retried")
    newest = await _newest(context, enrollment)
    await _check_failed(context, newest)
    return await _append_command(context, letter, newest)


async def _letter(context: OperatorContext, stream: str, sequence: int) -> DeadLetter:
    stored = await context.bus.get_last_or_leader(
        DEAD_LETTERS, DEAD_LETTER.wildcard(stream=stream, sequence=sequence)
    )
    try:
        letter = decode(stored.payload, stored.headers) if stored is not None else None
    except UnreadableEventError:
        letter = None
    if not isinstance(letter, DeadLetter) or (letter.stream, letter.sequence) != (stream, sequence):
        raise NotFoundError(f"no dead letter for message {sequence} of {stream}")
    return letter


async def _revoke(context: OperatorContext, letter: DeadLetter) -> str:
    """Order the revocation again, for the same reason."""
    stored = await context.bus.get_last_or_leader(OPS, letter.subject)
    if stored is None:
        raise NotFoundError(f"{letter.subject}: no such command")
    command: RevocationOrdered | WithdrawalOrdered | None
    if letter.subject.startswith(_WITHDRAWAL):
        command = read_authentic(WithdrawalOrdered, stored, context.validators, "command")
    else:
        command = read_authentic(RevocationOrdered, stored, context.operators, "command")
    if command is None:
        raise ConflictError(f"{letter.subject}: no operator signed this command")
    answer = await revoke_certificate(context, command.issuer, command.serial, command.reason)
    # For the record only: the issuer acted on the command to revoke.
    event = RetryOrdered(
        stream=letter.stream,
        sequence=letter.sequence,
        enrollment="",
        attempt=command.attempt + 1,
        operator=context.operator,
    )
    subject = RETRY.subject(
        transaction=command.issuer, csr=command.serial, attempt=command.attempt + 1
    )
    await context.append(subject, event)
    return answer


async def _newest(context: OperatorContext, enrollment: EnrollmentId) -> EnrollmentId:
    """Return the newest attempt: the device may have asked again by itself."""
    stream = enroll_stream(enrollment.shard)
    stored = await context.bus.get_last_from_leader(stream, enrollment.any_attempt())
    try:
        return parse_subject(stored.subject)[0] if stored is not None else enrollment
    except ValueError:
        raise CommandError("the newest attempt has an invalid subject") from None


async def _check_failed(context: OperatorContext, enrollment: EnrollmentId) -> None:
    """Raise `ConflictError` unless the newest attempt ended because it was given up.

    A refusal for any other reason stands, whether by a gate, a verifier or an operator.
    """
    stream, attempt = enroll_stream(enrollment.shard), _label(enrollment)
    end: EventPayload | None = None
    for stage, trusted in ((Stage.OUTCOME, context.issuers), (Stage.VERDICT, context.validators)):
        stored = await context.bus.get_last_or_leader(stream, enrollment.subject(stage))
        if stored is not None:
            end = read_stage(stored, trusted, stage)
        if end is not None:
            break
    if isinstance(end, CertificateIssued):
        raise ConflictError(f"not retried: a certificate has already been issued for {attempt}")
    if not isinstance(end, EnrollmentRejected | IssuanceFailed):
        raise ConflictError(f"not retried: {attempt} is in progress")
    if end.reason is not Reason.POISON:
        how = "failed" if isinstance(end, IssuanceFailed) else "was refused"
        raise ConflictError(
            f"not retried: {attempt} {how} ({end.reason});"
            " only an attempt that ended with the reason poison can be retried"
        )


async def _append_command(
    context: OperatorContext, letter: DeadLetter, newest: EnrollmentId
) -> str:
    """Append the command, and wait until a gateway has executed it."""
    next_attempt = newest.at(newest.attempt + 1)
    event = RetryOrdered(
        stream=letter.stream,
        sequence=letter.sequence,
        enrollment=newest.prefix(),
        attempt=next_attempt.attempt,
        operator=context.operator,
    )
    subject = retry_command(next_attempt)
    await context.append(subject, event)
    await context.bus.hint("command.retry", Message(subject.encode(), {}))
    stream, request = enroll_stream(next_attempt.shard), next_attempt.subject(Stage.REQUEST)
    if await context.until(stream, request, _ANSWER_SECONDS) is None:
        raise CommandError("command recorded; no gateway has executed it yet")
    return f"retried as {_label(next_attempt)}"


def _label(enrollment: EnrollmentId) -> str:
    """Return an attempt's name for people: numbered from 1, as on the page (subjects: from 0)."""
    return f"attempt {enrollment.attempt + 1}"
