"""Tokens as connectors write them and as nobody should, and the requests that bring them.

Nothing here calls the product's own code for tokens, so that a mistake of it cannot hide.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from services.validator.challenges.jws import Anchor
from services.validator.challenges.verifier import ChallengeRequest
from services.validator.facts import DecryptedRequest
from shared.log.subjects import EnrollmentId
from shared.x509.csr import CertificationRequest, read_csr
from tests.support.messages import (
    DEVICE_NAME,
    UTF8,
    challenge,
    csr,
    extension_request,
    oid,
    san,
    tlv,
)
from tests.support.world import NOW, PROFILE, facts

DAY: Final = 86400
ABSENT: Final = object()
NONCE: Final = "n0nce-5d41402abc4b2a76b9719d911017c592"
ISSUER: Final = "https://connector.example/tenant"
UPN: Final = "1.3.6.1.4.1.311.20.2.3"
REQUIRED: Final = ("iss", "sub", "iat", "exp", "nonce")
CLAIMS: Final[Mapping[str, Any]] = {
    "iss": ISSUER,
    "sub": "device-guid-1",
    "aud": "https://scep.example/demo",
    "iat": NOW - 60,
    "exp": NOW + 3600,
    "nonce": NONCE,
    "device_name": "device",
    "san_dns": ["device.example"],
}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
Sign = Callable[[bytes], bytes]


# Keys and signatures


@functools.cache
def rsa_key(_name: str = "connector") -> rsa.RSAPrivateKey:
    """An RSA key for each name, made once."""
    return rsa.generate_private_key(65537, 2048)


def p256(seed: int = 1001) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(seed, ec.SECP256R1())


def rs256(key: rsa.RSAPrivateKey) -> Sign:
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def es256_der(key: ec.EllipticCurvePrivateKey) -> Sign:
    return lambda data: key.sign(data, ec.ECDSA(hashes.SHA256()))


def es256_raw(key: ec.EllipticCurvePrivateKey) -> Sign:
    """The numbers r and s side by side, each as long as the curve's order."""
    size = (key.curve.key_size + 7) // 8

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(es256_der(key)(data))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign


def signer(key: PrivateKey) -> Sign:
    """How RFC 7518 has a key sign."""
    return rs256(key) if isinstance(key, rsa.RSAPrivateKey) else es256_raw(key)


def anchor(
    key: PrivateKey,
    subject: str = "CN=connector",
    not_before: int = NOW - DAY,
    not_after: int = NOW + DAY,
) -> Anchor:
    return Anchor(subject, not_before, not_after, key.public_key())


# Tokens


def base64url(data: bytes, *, padded: bool = False) -> str:
    encoded = base64.b64encode(data, b"-_").decode("ascii")
    return encoded if padded else encoded.rstrip("=")


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; `ABSENT` leaves one out."""
    changed = {**CLAIMS, **changes}
    return {name: value for name, value in changed.items() if value is not ABSENT}


def encode(content: Mapping[str, Any] | bytes) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def mint(
    payload: Mapping[str, Any] | bytes,
    key: PrivateKey | None = None,
    *,
    header: Mapping[str, Any] | bytes | None = None,
    sign: Sign | None = None,
    padded: str = "",
) -> str:
    """A token over these very bytes; `padded` names segments (h, p, s) that keep their `=`."""
    key = key or rsa_key()
    if header is None:
        header = {"alg": "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256", "typ": "JWT"}
    first = base64url(encode(header), padded="h" in padded)
    second = base64url(encode(payload), padded="p" in padded)
    signature = (sign or signer(key))(f"{first}.{second}".encode("ascii"))
    return f"{first}.{second}.{base64url(signature, padded='s' in padded)}"


# Requests


def dns(value: str | bytes) -> bytes:
    return tlv(0x82, value if isinstance(value, bytes) else value.encode())


def rfc822(value: str) -> bytes:
    return tlv(0x81, value.encode())


def uri(value: str) -> bytes:
    return tlv(0x86, value.encode())


def other_name(kind: str, *values: bytes) -> bytes:
    return tlv(0xA0, oid(kind), tlv(0xA0, *values))


def upn(value: str) -> bytes:
    return other_name(UPN, tlv(UTF8, value.encode()))


def request(
    *sans: bytes, subject: bytes = DEVICE_NAME, password: bytes | None = None, tag: int = UTF8
) -> CertificationRequest:
    """A CSR with these SANs; its signature is none, as nothing here looks at it."""
    attributes = [challenge(tag, password)] if password is not None else []
    if sans:
        attributes.append(extension_request(san(*sans)))
    return read_csr(csr(p256(7), *attributes, subject=subject, sign=lambda _: b"none"))


def enrollment(name: str = "one", attempt: int = 0, **changes: str) -> EnrollmentId:
    """Where an enrollment stands; one name, one transaction and CSR."""
    place = {"shard": "0", "profile": PROFILE, "transaction": f"{name}-t", "csr": f"{name}-c"}
    return EnrollmentId(**{**place, **changes}, attempt=attempt)


def asked(
    csr: CertificationRequest | None = None,
    where: EnrollmentId | None = None,
    *,
    key: str = "11" * 32,
    existing: str = "",
) -> ChallengeRequest:
    """What a verifier is asked."""
    return ChallengeRequest(
        enrollment=where or enrollment(),
        request_sha256=hashlib.sha256(b"a request").hexdigest(),
        transaction_id="0123456789ABCDEF",
        opened=DecryptedRequest(csr or request(), facts(spki_sha256=key)),
        asked_at=NOW,
        existing=existing,
    )
