"""An independent look at a token: `cryptography` alone, nothing of the product."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature


@dataclass(frozen=True)
class Seen:
    """A token whose signature held."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signature: bytes


def segment(text: str) -> bytes:
    """base64url without padding, each byte in its one spelling (RFC 7515 s2)."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text
    return data


def verified(token: str, certificate: bytes) -> Seen:
    """What a token says, if the key of this certificate (PEM) signed it; else an exception."""
    header, payload, signature = map(segment, token.split("."))
    data = token.rpartition(".")[0].encode("ascii")
    key = x509.load_pem_x509_certificate(certificate).public_key()
    algorithm = json.loads(header)["alg"]
    if isinstance(key, rsa.RSAPublicKey):
        assert algorithm == "RS256"
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert algorithm == "ES256"
        assert len(signature) == 64
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    return Seen(json.loads(header), json.loads(payload), signature)
