"""CertIDs of OCSP: the hashes that name a CA in requests and responses (RFC 6960 s4.1.1). Pure."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.scep.asn1 import BIT_STRING, SEQUENCE, Der
from shared.scep.certificate import read_certificate


def _sha1(content: bytes) -> Any:
    return hashlib.sha1(content, usedforsecurity=False)


# RFC 5019 asks for SHA-1; newer clients send SHA-256.
_HASHES: Final[Mapping[str, Callable[[bytes], Any]]] = {"sha1": _sha1, "sha256": hashlib.sha256}


@dataclass(frozen=True, slots=True)
class CaId:
    """A CA as CertIDs name it: hash algorithm, hash of its subject, hash of its key bits."""

    algorithm: str
    name_hash: bytes
    key_hash: bytes


def ca_ids(ca: bytes) -> tuple[CaId, ...]:
    """Return the names of a CA (DER), one for each hash algorithm that clients use."""
    parsed = read_certificate(ca)
    info = Der(parsed.spki).enter(SEQUENCE)
    info.element(SEQUENCE)
    key = info.value(BIT_STRING)[1:]
    return tuple(
        CaId(name, digest(parsed.subject).digest(), digest(key).digest())
        for name, digest in _HASHES.items()
    )
