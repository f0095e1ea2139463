"""Caching headers of CRLs and conditional requests (RFC 9111, RFC 9110 s13). Pure."""

import hashlib
from collections.abc import Mapping
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache

from cryptography import x509


@lru_cache(maxsize=64)
def _dates(der: bytes) -> tuple[str, str, float, str]:
    """Return Last-Modified, Expires, nextUpdate (Unix seconds; 0 if none) and ETag of a CRL."""
    crl = x509.load_der_x509_crl(der)
    until = crl.next_update_utc
    modified = format_datetime(crl.last_update_utc, usegmt=True)
    expires = format_datetime(until, usegmt=True) if until is not None else ""
    tag = f'"{hashlib.sha256(der).hexdigest()}"'
    return modified, expires, until.timestamp() if until is not None else 0.0, tag


def caching_headers(der: bytes, now: float) -> dict[str, str]:
    """Return the caching headers of a CRL (DER) at `now` (Unix seconds): fresh until nextUpdate.

    Every CRL is replaced at half of its lifetime. A cache that keeps one longer learns of a
    revocation later, but never trusts a CRL beyond its nextUpdate.
    """
    modified, expires, until, tag = _dates(der)
    headers = {
        "cache-control": f"public, max-age={max(0, int(until - now))}",
        "last-modified": modified,
        "etag": tag,
    }
    return headers | ({"expires": expires} if expires else {})


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
