"""What a role may publish, from the topology's own table: where an attacker with its key begins."""

import random

from shared.bus.grants import HINTS, grants
from shared.log.roles import Role

SHARD = "0"
API = ("$JS.API.", "$JS.ACK.")
FRESH = random.SystemRandom()


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


def filled(pattern: str, *tokens: bytes, rng: random.Random = FRESH) -> bytes:
    """A subject that fits: the last wildcards take these tokens, the others are of `rng`."""
    parts = [part.encode() for part in pattern.split(".")]
    places = [index for index, part in enumerate(parts) if part in (b"*", b">")]
    others = (rng.randbytes(13).hex().encode() for _ in range(len(places) - len(tokens)))
    chosen = [*others, *tokens][: len(places)]
    for place, token in zip(places, chosen, strict=True):
        parts[place] = token
    return b".".join(parts)
