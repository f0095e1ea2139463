"""What a role may publish, from the topology's own table: where an attacker with its key begins."""

import secrets
from collections.abc import Iterator

from shared.bus.grants import HINTS, grants
from shared.bus.topology import Role

SHARD = "0"
API = ("$JS.API.", "$JS.ACK.")


def writable(role: Role) -> list[str]:
    """Subject patterns that this role may append to."""
    return [g.subject for g in grants([SHARD]) if g.role is role and not g.subject.startswith(API)]


def readable(role: Role) -> list[str]:
    """Subject patterns of the direct gets that it may ask for."""
    begin = "$JS.API.DIRECT.GET."
    return [g.subject for g in grants([SHARD]) if g.role is role and g.subject.startswith(begin)]


def hinted(role: Role) -> list[str]:
    """Core subjects on which others hear it."""
    return [hint.subject for hint in HINTS if hint.publisher is role]


def filled(pattern: str, *tokens: bytes) -> bytes:
    """A subject that fits: the last wildcards take these tokens, the others are fresh."""
    parts = [part.encode() for part in pattern.split(".")]
    places = [index for index, part in enumerate(parts) if part in (b"*", b">")]
    chosen = [*_fresh(len(places) - len(tokens)), *tokens][: len(places)]
    for place, token in zip(places, chosen, strict=True):
        parts[place] = token
    return b".".join(parts)


def _fresh(count: int) -> Iterator[bytes]:
    return (secrets.token_hex(13).encode() for _ in range(max(0, count)))
