"""When a CA issues, and when a certificate is to be renewed. Times are Unix seconds. Pure."""

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


def renewable_from(not_before: int, not_after: int, window: int | None) -> int:
    """Return the time from which a certificate may be renewed.

    `window` (s) is how long before its end that is: None for the last third of its life, 0 for any
    time.
    """
    if window == 0:
        return not_before
    return not_after - (window if window is not None else (not_after - not_before) // 3)


def renewal_late_from(not_before: int, not_after: int, window: int | None) -> int:
    """Return the time from which a device should have renewed its certificate.

    That is when half of the time is gone in which it may, from `renewable_from` to the end.
    """
    begin = max(not_before, renewable_from(not_before, not_after, window))
    return not_after - (not_after - begin) // 2
