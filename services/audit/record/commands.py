"""Projection of operators' commands and their answers to rows of `commands`. Pure."""

from collections.abc import Mapping
from typing import Final

from services.audit.record.changes import Changes, Row
from services.audit.record.event_row import storable
from services.audit.store.commands import Command
from shared.log.catalog import (
    ANCHOR_RELOAD,
    ANCHOR_RELOAD_ANSWER,
    API_TOKEN,
    API_TOKEN_REVOCATION,
    CHALLENGE,
    CHALLENGE_CANCELLATION,
    ORPHAN_ANSWER,
    ORPHAN_REPORT,
    RA_RELOAD,
    RA_RELOAD_ANSWER,
    RESUME,
    RETRY,
    REVOCATION,
    REVOCATION_ANSWER,
    WITHDRAWAL,
    WITHDRAWAL_ANSWER,
)
from shared.log.channels import Channel, Match
from shared.log.envelope import Stored
from shared.log.events.base import EventPayload
from shared.log.events.commands import (
    ApiTokenCreated,
    ApiTokenRevoked,
    ChallengeCancelled,
    ChallengeCreated,
    CommandAnswered,
    Ordered,
    OrphanReported,
    ReloadOrdered,
    ResumeOrdered,
    RetryOrdered,
    RevocationOrdered,
    WithdrawalOrdered,
)
from shared.log.events.enrollment import HoldDecided
from shared.log.subjects import parse_prefix, parse_subject

_KINDS: Final[Mapping[Channel, Command]] = {
    REVOCATION: Command.REVOKE,
    WITHDRAWAL: Command.WITHDRAW,
    ORPHAN_REPORT: Command.SETTLE_ORPHAN,
    ANCHOR_RELOAD: Command.RELOAD_TRUST,
    RA_RELOAD: Command.RELOAD_RA,
    RETRY: Command.RETRY,
    RESUME: Command.RESUME,
    CHALLENGE: Command.CREATE_CHALLENGE,
    CHALLENGE_CANCELLATION: Command.CANCEL_CHALLENGE,
    API_TOKEN: Command.CREATE_TOKEN,
    API_TOKEN_REVOCATION: Command.REVOKE_TOKEN,
}
# The channel of an answer, and of its command.
_ANSWERED: Final[Mapping[Channel, Channel]] = {
    REVOCATION_ANSWER: REVOCATION,
    WITHDRAWAL_ANSWER: WITHDRAWAL,
    ORPHAN_ANSWER: ORPHAN_REPORT,
    ANCHOR_RELOAD_ANSWER: ANCHOR_RELOAD,
    RA_RELOAD_ANSWER: RA_RELOAD,
}
_WANT_ANSWERS: Final = frozenset(
    {
        Command.REVOKE,
        Command.WITHDRAW,
        Command.SETTLE_ORPHAN,
        Command.RELOAD_TRUST,
        Command.RELOAD_RA,
    }
)
_BY_ISSUERS: Final = (REVOCATION_ANSWER, WITHDRAWAL_ANSWER, ORPHAN_ANSWER)


def decided(changes: Changes, at: Match, stored: Stored, event: EventPayload) -> None:
    """Project an operator's decision on a held enrollment."""
    assert isinstance(event, HoldDecided)
    enrollment = parse_subject(stored.subject)[0]
    columns = {
        "kind": Command.APPROVE if event.approved else Command.DENY,
        "profile": at.fields["profile"],
        "enrollment": enrollment.prefix(),
        "note": event.note,
    }
    _give(changes, stored, event.operator, columns)


def ordered(changes: Changes, at: Match, stored: Stored, event: EventPayload) -> None:
    """Project a command, and how many answers it expects."""
    assert isinstance(event, Ordered)
    kind = _KINDS[at.channel]
    _give(changes, stored, event.operator, {"kind": kind} | _about(at.fields, event))
    expected = len(event.replicas) if isinstance(event, ReloadOrdered) else 1
    _row(changes, stored.subject)["expected"] = expected if kind in _WANT_ANSWERS else None


def answered(changes: Changes, at: Match, _: Stored, event: EventPayload) -> None:
    """Project the answer of an issuer or a replica.

    `detail` is an issuer's answer; of a reload it is the last refusal.
    """
    assert isinstance(event, CommandAnswered)
    row = _row(changes, _ANSWERED[at.channel].subject(**at.fields))
    row["answered"] += 1
    row["refused"] += not event.done
    if not event.done or at.channel in _BY_ISSUERS:
        row["detail"] = storable(event.detail)


def _row(changes: Changes, subject: str) -> Row:
    """Return a command's row; its counts start at 0, since they are added to the table's."""
    new = {"subject": subject, "answered": 0, "refused": 0}
    return changes.commands.setdefault(subject, new)


def _give(
    changes: Changes, stored: Stored, operator: str, columns: Mapping[str, str | None]
) -> None:
    texts = {name: storable(value) for name, value in columns.items()}
    row = {"operator": storable(operator), "ordered_at": stored.time}
    _row(changes, stored.subject).update(texts | row)


def _about(fields: Mapping[str, str], event: Ordered) -> dict[str, str | None]:
    """Return what the command is about, and one note on it."""
    match event:
        case RevocationOrdered() | WithdrawalOrdered() | OrphanReported():
            return _at_issuer(fields, event)
        case RetryOrdered():
            return _retry(event)
        case ResumeOrdered():
            return _resume(event)
        case ChallengeCreated() | ChallengeCancelled():
            note = event.cn if isinstance(event, ChallengeCreated) else None
            return {"profile": fields["profile"], "about": fields["digest"], "note": note}
        case ApiTokenCreated() | ApiTokenRevoked():
            level = event.level if isinstance(event, ApiTokenCreated) else None
            return {"about": event.name, "note": level}
    return {"profile": fields.get("profile")}


def _at_issuer(
    fields: Mapping[str, str], event: RevocationOrdered | WithdrawalOrdered | OrphanReported
) -> dict[str, str | None]:
    """Return the certificate and the reason; or the order, and whether a certificate was found."""
    if isinstance(event, RevocationOrdered):
        return {"about": f"{fields['issuer']} {fields['serial']}", "note": event.reason.value}
    if isinstance(event, WithdrawalOrdered):
        return {"about": f"{fields['issuer']} {fields['serial']}", "note": event.cause}
    note = "revoke" if event.certificates else "none at the CA"
    return {"about": f"{fields['issuer']} {fields['key']}", "note": note}


def _retry(event: RetryOrdered) -> dict[str, str | None]:
    """Return the dead letter and the attempt to make; a retried revocation has no attempt."""
    columns: dict[str, str | None] = {"about": f"{event.stream} {event.sequence}"}
    try:
        found = parse_prefix(event.enrollment).at(event.attempt)
    except ValueError:
        return columns
    return columns | {"profile": found.profile, "enrollment": found.prefix()}


def _resume(event: ResumeOrdered) -> dict[str, str | None]:
    """Return the attempt that waits, and the stage that it waits for."""
    note = f"give up: {event.stage}" if event.give_up else str(event.stage)
    columns: dict[str, str | None] = {"note": note}
    try:
        found = parse_prefix(event.enrollment)
    except ValueError:
        return columns
    return columns | {"profile": found.profile, "enrollment": found.prefix()}
