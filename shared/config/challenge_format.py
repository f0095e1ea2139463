"""Distinguish signed challenges from passwords, in profiles that accept both. Pure."""

from typing import Final

# A longer challenge with exactly two dots is a signed challenge rather than a password.
_TOKEN_BYTES: Final = 200
_TOKEN_DOTS: Final = 2


def looks_signed(challenge: str) -> bool:
    """Return whether a challenge looks signed (gate 1 of profiles that also accept passwords)."""
    size = len(challenge.encode("utf-8", "surrogatepass"))
    return size > _TOKEN_BYTES and challenge.count(".") == _TOKEN_DOTS
