"""CRLs in the log: the newest of a CA or partition, accepted only if the CA signed it."""

import hashlib
from dataclasses import dataclass

from shared.bus.core import Bus, BusUnavailableError
from shared.bus.series import Series
from shared.ca.partitions import Partition
from shared.log.envelope import Trusted, UnreadableEventError
from shared.log.events.certificates import CrlPublished
from shared.log.streams import CRLS
from shared.log.subjects import crl_chunk, crl_head
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import public_key
from shared.x509.key_ids import spki_sha256
from shared.x509.signatures import is_signed_by

CHUNK_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class StoredCrl:
    """A CRL as DER, and the event that announced it."""

    head: CrlPublished
    der: bytes


def crl_heads(
    bus: Bus, issuer: str, ca: bytes, trusted: Trusted, partition: Partition | None = None
) -> Series[CrlPublished]:
    """Return the series of the events that announce a CA's (DER) complete CRLs, or a partition."""
    pin = spki_sha256(read_certificate(ca).spki)
    wildcard = crl_head(issuer, pin, "*", partition.name if partition is not None else "")
    return Series(bus, CRLS, wildcard, CrlPublished, trusted, "crl")


async def newest_head(
    bus: Bus, issuer: str, ca: bytes, trusted: Trusted, partition: Partition | None = None
) -> CrlPublished | None:
    """Return the event of a CA's (DER) newest authentic CRL, or None if there is none."""
    newest = await crl_heads(bus, issuer, ca, trusted, partition).newest()
    return newest.event if newest is not None else None


async def read_crl(bus: Bus, head: CrlPublished, ca: bytes) -> StoredCrl:
    """Read a CRL's pieces and return it.

    Raises `UnreadableEventError` if the CA (DER) did not sign it or its digest is wrong, and
    `BusUnavailableError` if a piece cannot be read yet.
    """
    chunks = []
    for index in range(head.chunks):
        stored = await bus.get_last_or_leader(CRLS, crl_chunk(head.issuer, head.sha256, index))
        if stored is None:
            raise BusUnavailableError("a part of the CRL is not readable yet")
        chunks.append(stored.payload)
    der = b"".join(chunks)
    try:
        signed = is_signed_by(der, public_key(read_certificate(ca).spki))
    except ScepError:
        signed = False
    if not signed or hashlib.sha256(der).hexdigest() != head.sha256:
        raise UnreadableEventError("the CRL is not signed by the CA, or its digest is wrong")
    return StoredCrl(head, der)
