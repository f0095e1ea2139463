"""Parsing of nats-server's refusals of a publish or a subscription. Pure."""

import re
from typing import Final

_REFUSED: Final = re.compile('permissions violation for (publish|subscription) to "([^"]*)"')


def refused_by(error: Exception) -> tuple[str, str]:
    """Return "publish" or "subscription" and the subject in lower case; ("", "") for other errors.

    The server does not name the reply subject; nats-py lowercases the whole message.
    """
    found = _REFUSED.search(str(error).lower())
    return (found[1], found[2]) if found else ("", "")
