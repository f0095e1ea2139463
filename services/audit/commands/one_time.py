"""One-time challenges: created, listed and cancelled. The challenges themselves are not stored."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from services.audit.commands.context import (
    ConflictError,
    NotFoundError,
    OperatorContext,
)
from shared.bus.ended import has_failed
from shared.bus.series import Entry, Series, signing
from shared.log.envelope import UnreadableEventError, authenticate_as
from shared.log.events.commands import ChallengeCancelled, ChallengeCreated
from shared.log.events.state import ChallengeClaimed
from shared.log.one_time import (
    ALPHABET,
    GROUP_LENGTH,
    GROUPS,
    ONE_TIME,
    one_time_digest,
    write_one_time,
)
from shared.log.streams import OPS, REPLAYS
from shared.log.subjects import one_time_cancelled, one_time_created, replay_record

SHORT: Final = 10


@dataclass(frozen=True)
class ChallengeSummary:
    """A challenge in a list; times are Unix seconds; state is open, used, cancelled or expired."""

    id: str
    cn: str
    sans: tuple[str, ...]
    operator: str
    created_at: int
    expires_at: int
    state: str


@dataclass(frozen=True)
class CreatedChallenge:
    """A new challenge, returned to its creator and not stored; `expires_at` is in Unix seconds."""

    id: str
    challenge: str = field(repr=False)
    expires_at: int


async def create(
    context: OperatorContext, profile: str, cn: str, sans: tuple[str, ...], expires_at: int
) -> CreatedChallenge:
    """Create a challenge that is valid until `expires_at` (Unix s).

    It is bound to `cn` and `sans` where they are not empty. Raises `NotFoundError` for an unknown
    profile, `ConflictError` for one without one-time challenges, or if the challenge exists.
    """
    _check(context, profile)
    letters = "".join(secrets.choice(ALPHABET) for _ in range(GROUPS * GROUP_LENGTH))
    challenge = write_one_time(letters)
    event = ChallengeCreated(
        profile=profile, expires_at=expires_at, operator=context.operator, cn=cn, sans=sans
    )
    digest = one_time_digest(profile, challenge)
    subject = one_time_created(profile, digest)
    if not await context.append(subject, event):
        raise ConflictError("the random challenge that was drawn is in use; try again")
    return CreatedChallenge(digest, challenge, expires_at)


def _check(context: OperatorContext, profile: str) -> None:
    found = context.configuration.profiles.get(profile)
    if found is None:
        raise NotFoundError(f"no such profile: {profile}")
    if not found.one_time_enabled:
        raise ConflictError(
            f"profile {profile} does not accept one-time challenges; set one_time_enabled"
        )


async def list_challenges(
    context: OperatorContext, profile: str, now: float
) -> list[ChallengeSummary]:
    """Return a profile's challenges, the newest last."""
    _check(context, profile)
    return [line async for line in _lines(context, profile, now)]


async def _lines(
    context: OperatorContext, profile: str, now: float
) -> AsyncIterator[ChallengeSummary]:
    wildcard, position = one_time_created(profile, "*"), 0
    while stored := await context.bus.get_next_or_leader(OPS, wildcard, position + 1):
        position = stored.sequence
        digest = stored.subject.split(".")[3]
        try:
            event = authenticate_as(ChallengeCreated, stored, context.operators)
        except UnreadableEventError:
            continue  # an old key, or no operator: validators reject it too
        state = await _state(context, profile, digest, event, now)
        created_at = stored.seconds
        yield ChallengeSummary(
            digest, event.cn, event.sans, event.operator, created_at, event.expires_at, state
        )


async def _state(
    context: OperatorContext, profile: str, digest: str, event: ChallengeCreated, now: float
) -> str:
    """Return the state a validator sees: of use and cancellation, the first in the log counts."""
    used, holder = await _use(context, digest)
    cancelled = await _cancelled(context, profile, digest).newest()
    if cancelled is not None and (holder is None or cancelled.stored.time <= holder.stored.time):
        return "cancelled"
    if used:
        return "used"
    return "expired" if now >= event.expires_at else "open"


async def _use(
    context: OperatorContext, digest: str
) -> tuple[bool, Entry[ChallengeClaimed] | None]:
    """Return whether a challenge was ever used, and the record of a use that has not failed."""
    places = replay_record(ONE_TIME, digest, "*")
    records = Series(context.bus, REPLAYS, places, ChallengeClaimed, context.validators, ONE_TIME)
    used = False
    async for entry in records.all():
        used, prefix = True, entry.event.enrollment
        if not await has_failed(context.bus, prefix, context.validators, context.issuers):
            return used, entry
    return used, None


def _cancelled(context: OperatorContext, profile: str, digest: str) -> Series[ChallengeCancelled]:
    places = one_time_cancelled(profile, digest, "*")
    return Series(context.bus, OPS, places, ChallengeCancelled, context.operators, ONE_TIME)


async def _is_free_again(context: OperatorContext, challenge: str, state: str) -> bool:
    """Return whether it was used and every use has failed: its device may try again."""
    return state == "used" and (await _use(context, challenge))[1] is None


async def cancel(context: OperatorContext, profile: str, id_: str, now: float) -> str:
    """Cancel the challenge with this ID and return the whole ID.

    `id_` is the whole ID, or as much of it as lists print.
    """
    lines = await list_challenges(context, profile, now)
    found = [line for line in lines if id_ in (line.id, line.id[:SHORT])]
    if len(found) != 1:
        error = ConflictError if found else NotFoundError
        several = f"several challenges whose ID begins with {id_}; give the full ID"
        raise error(f"profile {profile} has {several if found else f'no challenge with ID {id_}'}")
    challenge = found[0].id
    if found[0].state != "open" and not await _is_free_again(context, challenge, found[0].state):
        raise ConflictError(f"{challenge[:SHORT]}: already {found[0].state}")
    event = ChallengeCancelled(profile=profile, operator=context.operator)
    place = partial(one_time_cancelled, profile, challenge)
    written = signing(place, event, context.settings.signer)
    await _cancelled(context, profile, challenge).append(None, written)
    after = {each.id: each for each in await list_challenges(context, profile, now)}
    if after[challenge].state != "cancelled":
        raise ConflictError(f"{challenge[:SHORT]}: was used before it could be cancelled")
    return challenge
