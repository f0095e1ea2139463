"""Caching headers of CRLs and conditional requests (RFC 9111, RFC 9110 s13). Pure."""

from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime


def caching_headers(modified: int, until: int, sha256: str, now: float) -> dict[str, str]:
    """Return the caching headers of a CRL at `now`: fresh until its nextUpdate.

    Times are Unix seconds, `sha256` is the CRL's digest in hex. Every CRL is replaced at half of
    its lifetime. A cache that keeps one longer learns of a revocation later, but never trusts a CRL
    beyond its nextUpdate.
    """
    return {
        "cache-control": f"public, max-age={max(0, int(until - now))}",
        "last-modified": formatdate(modified, usegmt=True),
        "etag": f'"{sha256}"',
        "expires": formatdate(until, usegmt=True),
    }


def is_unchanged(request: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Return whether the client's copy is current: by If-None-Match, else If-Modified-Since."""
    if (tags := request.get("if-none-match")) is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return headers["etag"] in known or "*" in known
    try:
        since = parsedate_to_datetime(request.get("if-modified-since", ""))
        return parsedate_to_datetime(headers["last-modified"]) <= since
    except (ValueError, OverflowError, TypeError):  # no date, or one without a zone
        return False
