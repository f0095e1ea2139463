"""GetCACaps: what a profile can do, one keyword a line (RFC 8894 s3.5.2)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What of a profile GetCACaps depends on."""

    legacy: bool = False
    renewal: bool = False
    next_ca: bool = False


def write_caps(what: Capabilities) -> bytes:
    """The capabilities; SHA-384 is no IANA keyword, but strongSwan 5.9 wants it for AES."""
    keywords = ["AES", "POSTPKIOperation"]
    keywords += ["Renewal"] if what.renewal else []
    keywords += ["SCEPStandard", "SHA-256", "SHA-384", "SHA-512"]
    keywords += ["DES3", "SHA-1"] if what.legacy else []
    keywords += ["GetNextCACert"] if what.next_ca else []
    return "".join(f"{keyword}\n" for keyword in keywords).encode()


def read_caps(body: bytes) -> frozenset[str]:
    """The keywords of a server's answer, upper-cased; what is no ASCII is dropped."""
    return frozenset(body.decode("ascii", "ignore").upper().split())
