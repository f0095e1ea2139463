"""Distinguishes challenges from passwords in profiles that accept both. Pure."""

import re
from typing import Final

_BASE64: Final = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
# A longer challenge with exactly two dots is a signed challenge rather than a password.
_TOKEN_BYTES: Final = 200
_TOKEN_DOTS: Final = 2


def looks_signed(challenge: str) -> bool:
    """Return whether a challenge looks signed (gate 1 of profiles that also accept passwords)."""
    size = len(challenge.encode("utf-8", "surrogatepass"))
    return size > _TOKEN_BYTES and challenge.count(".") == _TOKEN_DOTS


def looks_encrypted(challenge: str) -> bool:
    """Return whether a challenge may be one of Intune: long, and base64 alone."""
    return len(challenge) > _TOKEN_BYTES and _BASE64.fullmatch(challenge) is not None
