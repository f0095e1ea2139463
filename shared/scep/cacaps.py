"""GetCACaps: the capabilities of a SCEP profile, one keyword per line (RFC 8894 s3.5.2)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The settings of a SCEP profile that GetCACaps depends on."""

    legacy: bool = False
    renewal: bool = False
    next_ca: bool = False


def write_caps(what: Capabilities) -> bytes:
    """Write the keywords. SHA-384 is not registered by IANA; strongSwan 5.9 needs it for AES."""
    keywords = ["AES", "POSTPKIOperation"]
    keywords += ["Renewal"] if what.renewal else []
    keywords += ["SCEPStandard", "SHA-256", "SHA-384", "SHA-512"]
    keywords += ["DES3", "SHA-1"] if what.legacy else []
    keywords += ["GetNextCACert"] if what.next_ca else []
    return "".join(f"{keyword}\n" for keyword in keywords).encode()


def read_caps(body: bytes) -> frozenset[str]:
    """Return the keywords of a server's answer in upper case; non-ASCII bytes are dropped."""
    return frozenset(body.decode("ascii", "ignore").upper().split())
