"""What nats-server says when it refuses a publish or a subscription. Pure."""

import re
from typing import Final

_REFUSED: Final = re.compile('permissions violation for (publish|subscription) to "([^"]*)"')


def refused_by(error: Exception) -> tuple[str, str]:
    """("publish" or "subscription", the subject in lower case), ("", "") for other errors.

    The server names no reply subject; nats-py makes the whole message lower case.
    """
    found = _REFUSED.search(str(error).lower())
    return (found[1], found[2]) if found else ("", "")
