"""Reload RA certificates and keys on every running gateway, and collect the results."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec.structs

from services.audit.commands.context import CommandError, NotFoundError, OperatorContext
from shared.log.envelope import Message, Stored, UnreadableEventError, decode
from shared.log.events.commands import CommandAnswered, ReloadOrdered
from shared.log.events.state import GatewayHeartbeat
from shared.log.roles import Role
from shared.log.streams import OPS
from shared.log.subjects import ra_reload_command, reload_answer, replica_subject
from shared.observe.logs import log_failure

_ANSWER_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1
# Gateways' heartbeats are not signed, so what is made of them is bounded.
_NAME: Final = re.compile("[A-Za-z0-9_-]{1,64}")
_MOST_ERROR: Final = 500
_MOST: Final = 256


@dataclass(frozen=True, slots=True)
class GatewayReload:
    """One gateway's result; `error` is "" if it has read everything."""

    name: str
    error: str


async def gateways(context: OperatorContext) -> list[GatewayHeartbeat]:
    """Return the newest heartbeat of each running gateway, by name; at most 256."""
    found: dict[str, GatewayHeartbeat] = {}
    async for stored in context.heartbeats(Role.GATEWAY):
        try:
            seen = decode(stored.payload, stored.headers)
        except UnreadableEventError:
            continue
        if not isinstance(seen, GatewayHeartbeat):
            continue
        place = replica_subject(Role.GATEWAY, seen.name)
        if stored.subject == place and _NAME.fullmatch(seen.name):
            found[seen.name] = msgspec.structs.replace(seen, error=seen.error[:_MOST_ERROR])
    # The last ones heard: a gateway repeats its heartbeat, a planted one is not repeated.
    return [found[name] for name in sorted(list(found)[-_MOST:])]


async def reload_ra(
    context: OperatorContext, profile: str, command_id: str
) -> Sequence[GatewayReload]:
    """Order all gateways to reload their RAs; return each one's result.

    Gateways read all settings again, not only those of `profile`. `command_id` is unique.
    Raises `CommandError` if no gateway is running.
    """
    if profile not in context.configuration.profiles:
        raise NotFoundError(f"no such profile: {profile}")
    names = [seen.name for seen in await gateways(context)]
    if not names:
        raise CommandError("no gateway is running")
    event = ReloadOrdered(profile=profile, operator=context.operator, replicas=tuple(names))
    subject = ra_reload_command(profile, command_id)
    await context.append(subject, event)
    stored = await context.bus.get_last_or_leader(OPS, subject)
    if stored is None:
        raise CommandError("command recorded, but it cannot be read back yet; try again")
    await context.bus.hint("command.ra", Message(b"", {}))
    results = await _results(context, names, stored.sequence)
    recorded = (_record(context, stored, each) for each in results)
    for outcome in await asyncio.gather(*recorded, return_exceptions=True):
        if isinstance(outcome, Exception):  # the gateways' results are returned all the same
            log_failure("result_record_failed", outcome, command=subject)
    return results


async def _record(context: OperatorContext, command: Stored, reload: GatewayReload) -> None:
    """Record a gateway's result: it has no key to sign with, so the audit service states it."""
    event = CommandAnswered(
        request_sha256=command.sha256(), done=not reload.error, detail=reload.error or "reloaded"
    )
    subject = reload_answer(command.subject, reload.name)
    await context.append(subject, event)


async def _results(
    context: OperatorContext, names: Sequence[str], sequence: int
) -> list[GatewayReload]:
    """Return each gateway's result once it has executed this command (sequence) or a later one.

    One that has not answered in time has that as its error.
    """
    deadline = asyncio.get_running_loop().time() + _ANSWER_SECONDS
    while True:
        done = {s.name: s.error for s in await gateways(context) if s.command >= sequence}
        late = asyncio.get_running_loop().time() >= deadline
        if late or done.keys() >= set(names):
            return [GatewayReload(name, done.get(name, "did not answer in time")) for name in names]
        await asyncio.sleep(_POLL_SECONDS)
