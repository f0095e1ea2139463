"""The recorded requests of tests/vectors, and the key that they are encrypted to."""

import base64
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.messages import Identity

VECTORS: Final = Path(__file__).parents[3] / "vectors"


def recorded() -> list[str]:
    """The recorded requests, as paths below the vectors; hand-made CSRs and CA files are none."""
    found = (path for path in VECTORS.glob("*/*") if path.parent.name not in ("csrs", "cas"))
    return sorted(str(path.relative_to(VECTORS)) for path in found)


def message_bytes(vector: str) -> bytes:
    """The message of a POST body, or of the GET request whose head was recorded."""
    data = (VECTORS / vector).read_bytes()
    if not vector.endswith(".http"):
        return data
    method, target, version = data.splitlines()[0].split(b" ")
    assert (method, version) == (b"GET", b"HTTP/1.1")
    _, query = target.split(b"?", 1)
    parameters = dict(pair.split(b"=", 1) for pair in query.split(b"&"))
    assert parameters[b"operation"] == b"PKIOperation"
    return base64.b64decode(unquote_to_bytes(parameters[b"message"]), validate=True)


def recorded_ra() -> Identity:
    """The lab CA that the requests were encrypted to."""
    key = serialization.load_pem_private_key((VECTORS / "ra.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return Identity(key, x509.load_pem_x509_certificate((VECTORS / "ra.pem").read_bytes()))
