"""When a CA may issue: only while its own certificate is valid. Pure."""

from datetime import UTC, datetime


def ca_ended(end: float, at: float) -> str:
    """Say that a CA valid until `end` (Unix seconds) has ended, "" while it has not."""
    if at < end:
        return ""
    return f"the CA ended at {_written(end)}: it issues no certificates any more"


def ca_not_begun(begin: float, at: float) -> str:
    """Say that a CA valid from `begin` (Unix seconds) on issues nothing yet, "" once it does."""
    if at >= begin:
        return ""
    return f"the CA is valid from {_written(begin)} only: it issues no certificates yet"


def _written(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
