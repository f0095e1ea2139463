"""Revocation: the command, and the wait for its answer."""

from dataclasses import dataclass
from typing import Final

import structlog

from services.audit.commands.context import (
    CommandError,
    MalformedError,
    NotFoundError,
    OperatorContext,
)
from shared.bus.log import read_authentic
from shared.log.envelope import Stored
from shared.log.events.commands import CommandAnswered, RevocationOrdered, RevocationReason
from shared.log.streams import CERTS, OPS
from shared.log.subjects import certificate_issued, revocation_answer, revocation_command
from shared.x509.serials import read_serial

_log = structlog.get_logger()
_ANSWER_SECONDS: Final = 30.0


async def revoke_certificate(
    context: OperatorContext, issuer: str, serial: str, reason: RevocationReason
) -> str:
    """Order a revocation and wait; return the issuer's answer.

    The same command is not given twice: the last one that was executed counts. One for another
    reason is new (it corrects the reason, or holds and releases), as is one after a failure. Raises
    `NotFoundError` for an unknown certificate, `CommandError` if the issuer refuses or does not
    answer in time.
    """
    token = written_serial(serial)
    if issuer not in context.configuration.issuers:
        raise NotFoundError(f"no such issuer: {issuer}")
    if await context.bus.get_last_or_leader(CERTS, certificate_issued(issuer, token)) is None:
        raise NotFoundError(f"issuer {issuer} has no certificate with serial number {serial}")
    attempt, done = 0, _Done(None, "")
    while True:
        subject = revocation_command(issuer, token, attempt)
        stored = await context.bus.get_last_or_leader(OPS, subject)
        if stored is not None:
            done = await _carried_out(context, stored) or done
            attempt += 1
        elif done.reason is reason:
            return f"already carried out: {done.detail}"
        else:
            command = RevocationOrdered(
                issuer=issuer,
                serial=token,
                attempt=attempt,
                reason=reason,
                operator=context.operator,
            )
            if await context.append(subject, command):
                return (await await_answer(context, subject)).detail


class ForgedAnswerError(CommandError):
    """Raised if an event that no issuer signed occupies the subject of an answer."""


@dataclass(frozen=True, slots=True)
class _Done:
    """A command that was executed: its reason, and the issuer's answer."""

    reason: RevocationReason | None
    detail: str


async def _carried_out(context: OperatorContext, stored: Stored) -> _Done | None:
    """Return the result of an earlier command; None if it failed or no operator gave it."""
    command = read_authentic(RevocationOrdered, stored, context.operators, "command")
    if command is None:
        return None
    try:
        answer = await _answer(context, stored.subject)
    except ForgedAnswerError:
        return None
    return _Done(command.reason, answer.detail) if answer.done else None


async def await_answer(context: OperatorContext, command: str) -> CommandAnswered:
    """Return an issuer's answer to the command on a subject.

    Raises `CommandError` if it refuses or does not answer in time.
    """
    answer = await _answer(context, command)
    if not answer.done:
        raise CommandError(f"the command failed: {answer.detail}")
    return answer


async def _answer(context: OperatorContext, command: str) -> CommandAnswered:
    stored: Stored | None = await context.until(OPS, revocation_answer(command), _ANSWER_SECONDS)
    if stored is None:
        raise CommandError("command recorded; no issuer has answered yet")
    answer = read_authentic(CommandAnswered, stored, context.issuers, "command")
    if answer is None:
        raise ForgedAnswerError("the answer to the command is not signed by an issuer")
    return answer


def written_serial(text: str) -> str:
    """Return a serial number as the log writes it: an INTEGER's contents in hex.

    `text` is hex as people write it, also with 0x or colons. Raises `MalformedError` for others.
    """
    serial = read_serial(text)
    if serial is None:
        raise MalformedError(f"{text}: not a serial number in hex")
    return serial
