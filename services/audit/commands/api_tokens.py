"""API tokens: created and revoked on the log first, so that the log has every one."""

import asyncio
import secrets

from services.audit.commands.context import (
    ConflictError,
    MalformedError,
    NotFoundError,
    OperatorContext,
)
from services.audit.roles import Level
from services.audit.store.api_tokens import add_token, list_tokens, mark_revoked
from services.audit.store.engine import Engine
from shared.log.events.commands import ApiTokenCreated, ApiTokenRevoked
from shared.log.subjects import api_token_created, api_token_revoked

_SECRET_BYTES = 32
_ORDER_BYTES = 8
_MOST_NAME = 64  # the length of the table's column


async def create_token(
    context: OperatorContext,
    engine: Engine,
    name: str,
    level: Level,
    now: float,
    secret: str | None = None,
) -> str:
    """Create an API token under an unused name and return it; only its digest is stored.

    `secret` is the token to use, None for a random one; `now` is in Unix seconds. Raises
    `MalformedError` for an invalid name, `ConflictError` for one that is taken.
    """
    if not 0 < len(name) <= _MOST_NAME or not name.isprintable():
        raise MalformedError(f"API token name must have 1 to {_MOST_NAME} printable characters")
    if name in await _names(engine):
        raise ConflictError(f"the API token name {name} is or was in use; choose another")
    event = ApiTokenCreated(name=name, level=level.value, operator=context.operator)
    subject = api_token_created(name, secrets.token_hex(_ORDER_BYTES))
    await context.append(subject, event)
    token = secret or secrets.token_urlsafe(_SECRET_BYTES)
    if not await asyncio.to_thread(add_token, engine, name, level, token, int(now)):
        raise ConflictError(f"the API token name {name} is or was in use; choose another")
    return token


async def revoke_token(context: OperatorContext, engine: Engine, name: str, now: float) -> None:
    """Revoke an API token at `now` (Unix s).

    If a first call stopped between log and database, a second one appends the event again. Raises
    `NotFoundError` if no valid token has this name.
    """
    names = await _names(engine)
    if name not in names or names[name] is not None:
        raise NotFoundError(f"no valid API token named {name}")
    event = ApiTokenRevoked(name=name, operator=context.operator)
    subject = api_token_revoked(name, secrets.token_hex(_ORDER_BYTES))
    await context.append(subject, event)
    await asyncio.to_thread(mark_revoked, engine, name, int(now))


async def _names(engine: Engine) -> dict[str, int | None]:
    """Return every token's name, with when it was revoked (Unix s)."""
    found = await asyncio.to_thread(list_tokens, engine)
    return {name: revoked_at for name, _, _, revoked_at in found}
