"""How a signed challenge is told from a password, where a profile takes both. Pure."""

from typing import Final

# Longer than this, with exactly two dots: a token rather than a password.
_TOKEN_BYTES: Final = 200
_TOKEN_DOTS: Final = 2


def looks_signed(challenge: str) -> bool:
    """Gate 1, of profiles that take passwords as well."""
    size = len(challenge.encode("utf-8", "surrogatepass"))
    return size > _TOKEN_BYTES and challenge.count(".") == _TOKEN_DOTS
