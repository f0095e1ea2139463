"""GetCACaps: what a profile can do, one keyword a line (RFC 8894 s3.5.2)."""

from typing import Final

_MODERN: Final = ("AES", "POSTPKIOperation", "SCEPStandard", "SHA-256", "SHA-384", "SHA-512")
_LEGACY: Final = ("DES3", "SHA-1")


def write_caps(*, legacy: bool) -> bytes:
    """The capabilities; SHA-384 is no IANA keyword, but strongSwan 5.9 wants it for AES."""
    return "".join(f"{keyword}\n" for keyword in (*_MODERN, *(_LEGACY if legacy else ()))).encode()


def read_caps(body: bytes) -> frozenset[str]:
    """The keywords of a server's answer, upper-cased; what is no ASCII is dropped."""
    return frozenset(body.decode("ascii", "ignore").upper().split())
