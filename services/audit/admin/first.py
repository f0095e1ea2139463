"""There is always somebody to ask: the first admin's token."""

import secrets
import sys
from collections.abc import Callable

from sqlalchemy import Engine

from services.audit.admin.auth import Level, add_token, is_first

ADMIN = "admin"


def ensure_admin(engine: Engine, read: Callable[[], str | None], now: float) -> None:
    """Where no token was ever made, take the configured one, else make one and print it once.

    The configured one is read only then: its file may be gone afterwards.
    """
    if not is_first(engine):
        return
    configured = read()
    token = configured or secrets.token_urlsafe(32)
    if add_token(engine, ADMIN, Level.ADMIN, token, int(now)) and configured is None:
        sys.stderr.write(f"admin token, shown this once: {token}\n")
        sys.stderr.flush()
