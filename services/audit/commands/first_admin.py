"""Bootstrap: the first admin's API token."""

import asyncio
import sys
from collections.abc import Callable

from services.audit.commands.api_tokens import create_token
from services.audit.commands.context import ConflictError, OperatorContext
from services.audit.roles import Level
from services.audit.store.api_tokens import is_first
from services.audit.store.engine import Engine

ADMIN = "admin"


async def ensure_admin(
    context: OperatorContext, engine: Engine, read: Callable[[], str | None], now: float
) -> None:
    """Create the first admin's token if no token was ever created.

    It is the configured one, from `read`; if none is configured, a random one is printed once to
    stderr. The configured one is read only then: its file may be gone afterwards.
    """
    if not await asyncio.to_thread(is_first, engine):
        return
    configured = read()
    try:
        token = await create_token(context, engine, ADMIN, Level.ADMIN, now, configured)
    except ConflictError:
        return  # another replica has just created it
    if configured is None:
        sys.stderr.write(f"admin token (shown once): {token}\n")
        sys.stderr.flush()
