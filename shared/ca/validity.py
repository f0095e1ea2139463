"""Checks that a CA issues only while its own certificate is valid. Pure."""

from datetime import UTC, datetime


def ca_ended(end: float, at: float) -> str:
    """Return an error if a CA valid until `end` has expired, else ""; times are Unix seconds."""
    if at < end:
        return ""
    return f"the CA ended at {_written(end)}: it issues no certificates any more"


def ca_not_begun(begin: float, at: float) -> str:
    """Return an error if a CA valid from `begin` is not valid yet, else ""; Unix seconds."""
    if at >= begin:
        return ""
    return f"the CA is valid from {_written(begin)} only: it issues no certificates yet"


def _written(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
