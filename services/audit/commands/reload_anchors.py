"""Every running validator reads a profile's anchors anew, and says how it went."""

import asyncio
from collections.abc import Sequence
from typing import Final

from services.audit.commands.context import (
    ConflictError,
    NotFoundError,
    OperatorContext,
    OrderError,
)
from shared.log.envelope import Message, UnreadableEventError, authenticate_as
from shared.log.events.commands import OrderAnswered, ReloadOrdered
from shared.log.events.state import ReplicaSeen
from shared.log.roles import Role
from shared.log.streams import OPS
from shared.log.subjects import reload_answer, reload_order

_ANSWER_SECONDS: Final = 20.0

Answers = Sequence[tuple[str, OrderAnswered | None]]


async def reload_anchors(context: OperatorContext, profile: str, order: str) -> Answers:
    """(replica, its answer, None where it was silent) of each; `order` names this one order."""
    found = context.configuration.profiles.get(profile)
    if found is None:
        raise NotFoundError(f"no such profile: {profile}")
    if not found.intune_enabled:
        raise ConflictError(f"profile {profile} has no anchors: intune_enabled")
    names = [seen.name for seen in await replicas(context)]
    if not names:
        raise OrderError("no validator is running")
    event = ReloadOrdered(profile=profile, operator=context.operator, replicas=tuple(names))
    subject = reload_order(profile, order)
    await context.append(subject, event)
    await context.bus.hint("order.reload", Message(b"", {}))
    answers = await asyncio.gather(*(_answer(context, subject, name) for name in names))
    return list(zip(names, answers, strict=True))


async def replicas(context: OperatorContext) -> list[ReplicaSeen]:
    """The validators that said within the last seconds that they are there, by name."""
    found: dict[str, ReplicaSeen] = {}
    async for stored in context.presences(Role.VALIDATOR):
        try:
            seen = authenticate_as(ReplicaSeen, stored, context.validators)
        except UnreadableEventError:
            continue
        found[seen.name] = seen
    return [found[name] for name in sorted(found)]


async def _answer(context: OperatorContext, order: str, name: str) -> OrderAnswered | None:
    stored = await context.until(OPS, reload_answer(order, name), _ANSWER_SECONDS)
    return authenticate_as(OrderAnswered, stored, context.validators) if stored else None
