"""Reload a profile's anchors on every running validator, and collect the results."""

import asyncio
from collections.abc import Sequence
from typing import Final

from services.audit.commands.context import (
    CommandError,
    ConflictError,
    NotFoundError,
    OperatorContext,
)
from shared.bus.log import read_authentic
from shared.log.envelope import Message, UnreadableEventError, authenticate_as
from shared.log.events.commands import CommandAnswered, ReloadOrdered
from shared.log.events.state import Heartbeat
from shared.log.roles import Role
from shared.log.streams import OPS
from shared.log.subjects import anchor_reload_command, reload_answer

_ANSWER_SECONDS: Final = 20.0

Answers = Sequence[tuple[str, CommandAnswered | None]]


async def reload_anchors(context: OperatorContext, profile: str, command_id: str) -> Answers:
    """Reload the anchors of a profile; return (replica, its answer) of each validator.

    The answer is None if there was none in time. `command_id` is unique. Raises `CommandError` if
    no validator is running.
    """
    found = context.configuration.profiles.get(profile)
    if found is None:
        raise NotFoundError(f"no such profile: {profile}")
    if not found.intune_enabled:
        raise ConflictError(f"profile {profile} has no trust anchors; set intune_enabled")
    names = [seen.name for seen in await replicas(context)]
    if not names:
        raise CommandError("no validator is running")
    event = ReloadOrdered(profile=profile, operator=context.operator, replicas=tuple(names))
    subject = anchor_reload_command(profile, command_id)
    await context.append(subject, event)
    await context.bus.hint("command.reload", Message(b"", {}))
    answers = await asyncio.gather(*(_answer(context, subject, name) for name in names))
    return list(zip(names, answers, strict=True))


async def replicas(context: OperatorContext) -> list[Heartbeat]:
    """Return the newest heartbeat of each running validator, by name."""
    found: dict[str, Heartbeat] = {}
    async for stored in context.heartbeats(Role.VALIDATOR):
        try:
            seen = authenticate_as(Heartbeat, stored, context.validators)
        except UnreadableEventError:
            continue
        found[seen.name] = seen
    return [found[name] for name in sorted(found)]


async def _answer(context: OperatorContext, command: str, name: str) -> CommandAnswered | None:
    stored = await context.until(OPS, reload_answer(command, name), _ANSWER_SECONDS)
    if stored is None:
        return None
    return read_authentic(CommandAnswered, stored, context.validators, "command")
