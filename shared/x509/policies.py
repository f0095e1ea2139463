"""Certificate policies as the configuration writes them (RFC 5280 s4.2.1.4). Pure."""

from typing import NamedTuple


class CertificatePolicy(NamedTuple):
    """A policy's dotted OID, and the URL of its certification practice statement, or ""."""

    oid: str
    cps: str


def read_policy(text: str) -> CertificatePolicy:
    """Read "OID" or "OID URL"; the configuration has checked both parts."""
    oid, _, cps = text.partition(" ")
    return CertificatePolicy(oid, cps)
