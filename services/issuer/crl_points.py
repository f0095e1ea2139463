"""Checks of the CRL URLs in a certificate of a CA whose CRLs are partitioned. Pure.

A partition lists only some certificates. A certificate that names another one than its own would
seem valid whatever the operator revokes, and a validator's key can be stolen. So every URL that
looks like a partition of the CA must be one of the key's own. Other URLs give nothing away: a
relying party accepts a partition only if the certificate names a URL that is signed into the
partition (RFC 5280 s6.3.3), and it accepts the complete CRL from anywhere.
"""

from typing import Final
from urllib.parse import unquote

from shared.ca.partitions import Partitioning, partition_of
from shared.scep.asn1 import CONSTRUCTED_0, SEQUENCE, Der

CRL_POINTS: Final = "2.5.29.31"
_URI: Final = 0x86


def bad_points(value: bytes, partitioning: Partitioning, pin: str, spki_sha256: str) -> str:
    """Return what is wrong with CRL distribution points, "" if nothing is.

    `pin` names the CA, `spki_sha256` the certificate's key. Raises `ScepError` if the value does
    not parse, or has points without URLs (which match every partition), reasons or other issuers.
    """
    if not partitioning.counts:
        return ""
    own = {
        url
        for count in partitioning.counts
        for url in partitioning.points(pin, partition_of(spki_sha256, count))
    }
    for url in _urls(value):
        if f"{pin}/" in unquote(url).lower() and url not in own:
            return "the certificate would name a CRL partition that is not its own"
    return ""


def _urls(value: bytes) -> list[str]:
    outer, urls = Der(value), list[str]()
    points = outer.enter(SEQUENCE)
    outer.finish()
    while points.more():
        point = points.enter(SEQUENCE)
        name = point.enter(CONSTRUCTED_0)
        point.finish()
        full = name.enter(CONSTRUCTED_0)
        name.finish()
        urls.append(full.value(_URI).decode("latin-1"))
        while full.more():
            urls.append(full.value(_URI).decode("latin-1"))
    return urls
