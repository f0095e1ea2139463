"""Checks that a CA issues only while its own certificate is valid. Pure."""

from datetime import UTC, datetime


def ca_ended(end: float, at: float) -> str:
    """Return an error if a CA valid until `end` has expired, else ""; times are Unix seconds."""
    if at < end:
        return ""
    return f"the CA expired at {_written(end)}: it no longer issues certificates"


def ca_not_begun(begin: float, at: float) -> str:
    """Return an error if a CA valid from `begin` is not valid yet, else ""; Unix seconds."""
    if at >= begin:
        return ""
    return f"the CA is not valid before {_written(begin)}: it does not issue certificates yet"


def _written(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
