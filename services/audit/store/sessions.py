"""Sessions of the page: a secret in a cookie, stored as a digest until it expires."""

import hashlib
import hmac
from typing import Final

from sqlalchemy import Engine, and_, delete, insert, literal, or_, select

from services.audit.roles import Level, Operator
from services.audit.store.api_tokens import token_sha256
from services.audit.store.tables import sessions, tokens

_CSRF: Final = b"scepstream page"


def open_session(
    engine: Engine,
    operator: Operator,
    secret: str,
    *,
    token: str | None,
    now: float,
    seconds: float,
) -> None:
    """Open a session at `now` (Unix s) for `seconds`; delete those that have expired.

    `token` is the name of the API token that was presented, None for an identity provider.
    """
    row = insert(sessions).values(
        sha256=token_sha256(secret),
        name=operator.name,
        level=operator.level.value,
        token=token,
        expires_at=int(now + seconds),
    )
    with engine.begin() as connection:
        connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
        connection.execute(row)


def session_operator(
    engine: Engine, secret: str, now: float, *, by_provider: bool = False
) -> Operator | None:
    """Return who is signed in; None if the session expired or its API token is revoked.

    `by_provider` says whether sessions that an identity provider opened count. `now` is in Unix
    seconds.
    """
    columns = sessions.c
    query = (
        select(columns.name, columns.level)
        .outerjoin(tokens, tokens.c.name == columns.token)
        .where(
            columns.sha256 == token_sha256(secret),
            columns.expires_at > now,
            or_(
                and_(columns.token.is_(None), literal(by_provider)),
                and_(tokens.c.name.is_not(None), tokens.c.revoked_at.is_(None)),
            ),
        )
    )
    with engine.connect() as connection:
        found = connection.execute(query).first()
    return Operator(found[0], Level(found[1])) if found is not None else None


def close_session(engine: Engine, secret: str) -> None:
    """Delete a session: sign out."""
    with engine.begin() as connection:
        connection.execute(delete(sessions).where(sessions.c.sha256 == token_sha256(secret)))


def csrf_token(secret: str) -> str:
    """Return what a page of this session sends with each command; other sites cannot know it."""
    return hmac.new(secret.encode(), _CSRF, hashlib.sha256).hexdigest()


def is_csrf_token(secret: str, shown: str) -> bool:
    """Return whether `shown` is the session's CSRF token."""
    return hmac.compare_digest(csrf_token(secret).encode(), shown.encode("utf-8", "replace"))
