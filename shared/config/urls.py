"""Credentials in URLs of a configuration."""

import re
from typing import Final

MASK: Final = "********"
# The value of `passfile` is a path, not a secret; it is masked because it says where one is.
_MASKED: Final = re.compile(r"((?:password|passfile|sslpassword)=)[^&]+", re.IGNORECASE)
_SECRET: Final = re.compile(r"[?&](?:ssl)?password=[^&]", re.IGNORECASE)


def masked_url(url: str) -> str:
    """Mask the credentials in a URL: what follows a colon in the user information, or all of it."""
    url = _MASKED.sub(rf"\1{MASK}", url)
    scheme, found, rest = url.partition("://") if "://" in url else ("", "", url)
    user, at, host = rest.rpartition("@")
    if not at or rest.startswith("/"):
        return url
    name, colon, _ = user.partition(":")
    shown = f"{name}:{MASK}" if colon and name else MASK
    if not colon and scheme.startswith("postgres"):
        shown = name  # a user without a password
    return f"{scheme}{found}{shown}@{host}"


def holds_secret(url: str) -> bool:
    """Return whether a URL carries credentials, in the user information or in the query."""
    if _SECRET.search(url):
        return True
    scheme, _, rest = url.partition("://")
    user, at, _ = rest.rpartition("@")
    _, colon, password = user.partition(":")
    if not at or rest.startswith("/"):
        return False
    return bool(password if colon else user and not scheme.startswith("postgres"))
