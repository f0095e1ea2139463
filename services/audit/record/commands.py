"""From operators' orders, and what was answered to them, to the rows of `orders`. Pure."""

from collections.abc import Mapping
from typing import Final

from services.audit.record.changes import Changes, Row
from services.audit.record.event_row import storable
from services.audit.store.commands import Order
from shared.log.catalog import Event
from shared.log.envelope import Stored
from shared.log.events.commands import (
    ApiTokenCreated,
    ApiTokenRevoked,
    ChallengeCancelled,
    ChallengeCreated,
    OrderAnswered,
    Ordered,
    RedriveOrdered,
    ReloadOrdered,
    ResumeOrdered,
    RevocationOrdered,
)
from shared.log.events.enrollment import HoldDecided
from shared.log.subjects import Stage, parse_prefix, parse_subject

# The second and the last token of a subject to what stands there: anything else is planted.
_PLACES: Final[Mapping[tuple[str, str], tuple[type[Ordered], Order]]] = {
    ("revoke", "order"): (RevocationOrdered, Order.REVOKE),
    ("reload", "order"): (ReloadOrdered, Order.RELOAD_TRUST),
    ("ra", "order"): (ReloadOrdered, Order.RELOAD_RA),
    ("redrive", "order"): (RedriveOrdered, Order.REDRIVE),
    ("resume", "order"): (ResumeOrdered, Order.RESUME),
    ("challenge", "created"): (ChallengeCreated, Order.CREATE_CHALLENGE),
    ("challenge", "cancelled"): (ChallengeCancelled, Order.CANCEL_CHALLENGE),
    ("token", "created"): (ApiTokenCreated, Order.CREATE_TOKEN),
    ("token", "revoked"): (ApiTokenRevoked, Order.REVOKE_TOKEN),
}
_WANT_ANSWERS: Final = frozenset({Order.REVOKE, Order.RELOAD_TRUST, Order.RELOAD_RA})
_ANSWERED: Final = ("revoke", "reload", "ra")
_TOKENS: Final = 6


def take_order(changes: Changes, stored: Stored, event: Event) -> None:
    """An order's row, or what an answer adds to it; other events say nothing here."""
    tokens = stored.subject.split(".")
    if isinstance(event, HoldDecided):
        _decision(changes, stored, event)
    elif tokens[0] == "ops" and len(tokens) == _TOKENS:
        if isinstance(event, OrderAnswered):
            _answer(changes, tokens, event)
        elif isinstance(event, Ordered):
            _order(changes, stored, tokens, event)


def _row(changes: Changes, subject: str) -> Row:
    """Counts start at nothing: they are added to what the table has."""
    new = {"subject": subject, "answered": 0, "refused": 0}
    return changes.orders.setdefault(subject, new)


def _give(changes: Changes, stored: Stored, operator: str, told: Mapping[str, str | None]) -> None:
    texts = {name: storable(value) for name, value in told.items()}
    row = {"operator": storable(operator), "ordered_at": stored.time}
    _row(changes, stored.subject).update(texts | row)


def _decision(changes: Changes, stored: Stored, event: HoldDecided) -> None:
    try:
        enrollment, stage = parse_subject(stored.subject)
    except ValueError:
        return
    if stage is Stage.DECISION:
        told = {
            "kind": Order.APPROVE if event.approved else Order.DENY,
            "profile": enrollment.profile,
            "enrollment": enrollment.prefix(),
            "note": event.note,
        }
        _give(changes, stored, event.operator, told)


def _order(changes: Changes, stored: Stored, tokens: list[str], event: Ordered) -> None:
    of_type, kind = _PLACES.get((tokens[1], tokens[-1]), (None, None))
    if of_type is not None and isinstance(event, of_type):
        _give(changes, stored, event.operator, {"kind": kind} | _about(tokens, event))
        expected = len(event.replicas) if isinstance(event, ReloadOrdered) else 1
        _row(changes, stored.subject)["expected"] = expected if kind in _WANT_ANSWERS else None


def _about(tokens: list[str], event: Ordered) -> dict[str, str | None]:
    """About what the order is, and the one thing more that there is to say of it."""
    match event:
        case RevocationOrdered():
            return {"about": f"{tokens[2]} {tokens[3]}", "note": event.reason.value}
        case RedriveOrdered():
            return _redrive(event)
        case ResumeOrdered():
            return _resume(event)
        case ChallengeCreated() | ChallengeCancelled():
            note = event.cn if isinstance(event, ChallengeCreated) else None
            return {"profile": tokens[2], "about": tokens[3], "note": note}
        case ReloadOrdered():
            return {"profile": tokens[2]}
        case ApiTokenCreated() | ApiTokenRevoked():
            note = event.level if isinstance(event, ApiTokenCreated) else None
            return {"about": event.name, "note": note}


def _redrive(event: RedriveOrdered) -> dict[str, str | None]:
    """The attempt that is to be made; none where a revocation was driven again."""
    told: dict[str, str | None] = {"about": f"{event.stream} {event.sequence}"}
    try:
        found = parse_prefix(event.enrollment).at(event.attempt)
    except ValueError:
        return told
    return told | {"profile": found.profile, "enrollment": found.prefix()}


def _resume(event: ResumeOrdered) -> dict[str, str | None]:
    """The attempt that waits, and the stage that it waits for."""
    note = f"give up: {event.stage}" if event.give_up else str(event.stage)
    told: dict[str, str | None] = {"note": note}
    try:
        found = parse_prefix(event.enrollment)
    except ValueError:
        return told
    return told | {"profile": found.profile, "enrollment": found.prefix()}


def _answer(changes: Changes, tokens: list[str], event: OrderAnswered) -> None:
    """An issuer's word or one replica's; of those who say no, the last one's is kept."""
    if tokens[1] not in _ANSWERED or tokens[-1] != "answer":
        return
    attempt = tokens[4] if tokens[1] == "revoke" else "all"
    row = _row(changes, ".".join([*tokens[:4], attempt, "order"]))
    row["answered"] += 1
    row["refused"] += not event.done
    if not event.done or tokens[1] == "revoke":
        row["said"] = storable(event.detail)
