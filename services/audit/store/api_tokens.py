"""API tokens: named bearer tokens of three roles, stored as digests."""

import hashlib

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from services.audit.roles import Level, Operator
from services.audit.store.tables import tokens


def token_sha256(token: str) -> str:
    """Return the digest that a token is stored as; it is too random to need a slower hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def operator_of(engine: Engine, token: str) -> Operator | None:
    """Return the operator of a token; None if it is unknown or revoked."""
    columns = tokens.c
    query = select(columns.name, columns.level).where(
        columns.sha256 == token_sha256(token), columns.revoked_at.is_(None)
    )
    with engine.connect() as connection:
        found = connection.execute(query).first()
    return Operator(found[0], Level(found[1])) if found is not None else None


def add_token(engine: Engine, name: str, level: Level, token: str, now: int) -> bool:
    """Store a token under a name, created at `now` (Unix s); return False if the name is taken."""
    row = insert(tokens).values(
        name=name, level=level.value, sha256=token_sha256(token), created_at=now
    )
    try:
        with engine.begin() as connection:
            connection.execute(row)
    except IntegrityError:
        return False
    return True


def mark_revoked(engine: Engine, name: str, now: int) -> bool:
    """Revoke a token at `now` (Unix s); return False if no valid one has this name."""
    with engine.begin() as connection:
        done = connection.execute(
            update(tokens)
            .where(tokens.c.name == name, tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
    return bool(done.rowcount)


def list_tokens(engine: Engine) -> list[tuple[str, str, int, int | None]]:
    """Return (name, level, created at, revoked at) of each token, by name (times in Unix s)."""
    columns = tokens.c
    query = select(columns.name, columns.level, columns.created_at, columns.revoked_at)
    with engine.connect() as connection:
        found = connection.execute(query.order_by(columns.name))
        return [(row[0], row[1], row[2], row[3]) for row in found]


def is_first(engine: Engine) -> bool:
    """Return whether no token was ever created."""
    with engine.connect() as connection:
        return connection.execute(select(tokens.c.name).limit(1)).first() is None
