"""CRLs on the log: the newest complete one of a CA, read and believed only if the CA signed it."""

import hashlib
from dataclasses import dataclass

from shared.bus.core import Bus, BusUnavailableError
from shared.bus.topology import CRLS
from shared.events import CrlPublished
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import public_key
from shared.signatures import is_signed_by
from shared.stored import Trusted, UnreadableEventError, authenticate_as
from shared.subjects import crl_chunk, crl_head

CHUNK_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class StoredCrl:
    """A CRL as DER, and what was announced of it."""

    head: CrlPublished
    der: bytes


async def newest_head(bus: Bus, issuer: str, ca: bytes, trusted: Trusted) -> CrlPublished | None:
    """What the newest CRL of a CA (DER) says of itself; `UnreadableEventError` if forged."""
    pin = hashlib.sha256(read_certificate(ca).spki).hexdigest()
    stored = await bus.get_last(CRLS, crl_head(issuer, pin, "*"))
    return None if stored is None else authenticate_as(CrlPublished, stored, trusted)


async def read_crl(bus: Bus, head: CrlPublished, ca: bytes) -> StoredCrl:
    """The CRL itself, in one piece; `UnreadableEventError` where the CA (DER) did not sign it."""
    chunks = []
    for index in range(head.chunks):
        stored = await bus.get_last(CRLS, crl_chunk(head.issuer, head.sha256, index))
        if stored is None:
            raise BusUnavailableError("a piece of the CRL cannot be read yet")
        chunks.append(stored.payload)
    der = b"".join(chunks)
    try:
        signed = is_signed_by(der, public_key(read_certificate(ca).spki))
    except ScepError:
        signed = False
    if not signed or hashlib.sha256(der).hexdigest() != head.sha256:
        raise UnreadableEventError("the CRL is not the CA's")
    return StoredCrl(head, der)
