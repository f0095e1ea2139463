"""Compact JWS, verified over the bytes on the wire: RS256 and ES256 only (RFC 7515). Pure."""

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

_SEGMENTS: Final = 3
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_P256_SIGNATURE: Final = 64
_ALGORITHMS: Final = frozenset({"RS256", "ES256"})

AnchorKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class MalformedTokenError(Exception):
    """Raised for bytes that are not a token of this form; the message says what is wrong."""


class UnacceptableTokenError(Exception):
    """Raised for a token whose header asks for something that is never accepted."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A connector's certificate: its key, and when its validity begins and ends (Unix seconds).

    `sha256` is the digest of the certificate, in hex.
    """

    subject: str
    not_before: int
    not_after: int
    key: AnchorKey
    sha256: str = ""

    def valid(self, now: int) -> bool:
        """Return whether the anchor is valid at this time (Unix seconds)."""
        return self.not_before <= now <= self.not_after


@dataclass(frozen=True, slots=True)
class Jws:
    """A token in its parts; `signing_input` holds exactly the bytes that were signed."""

    algorithm: str
    payload: bytes
    signing_input: bytes
    signature: bytes


def read_jws(token: str) -> Jws:
    """Split a token into its three segments and read the algorithm (RFC 7515 s5.2).

    Nothing but `alg` is taken from the header, and `crit` is refused: kid, jku, x5c and whatever
    else names a key are ignored. Raises `MalformedTokenError` or `UnacceptableTokenError`.
    """
    segments = token.split(".")
    if len(segments) != _SEGMENTS:
        raise MalformedTokenError("not three segments")
    header, payload, signature = (_decode(segment) for segment in segments)
    fields = read_object(header, "header")
    algorithm = fields.get("alg")
    if not isinstance(algorithm, str):
        raise MalformedTokenError("the header has no algorithm")
    if "crit" in fields:
        raise UnacceptableTokenError("the header has critical extensions")
    if algorithm not in _ALGORITHMS:
        raise UnacceptableTokenError("the algorithm is neither RS256 nor ES256")
    return Jws(algorithm, payload, token.rpartition(".")[0].encode("ascii"), signature)


def _decode(segment: str) -> bytes:
    """Decode base64url, padded or not; only canonical encodings are accepted (RFC 4648 s3.5)."""
    if not _BASE64URL.fullmatch(segment):
        raise MalformedTokenError("a segment is empty or not base64url")
    bare = segment.rstrip("=")
    try:
        decoded = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except (binascii.Error, ValueError):
        raise MalformedTokenError("a segment is not base64url") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != bare.encode("ascii"):
        raise MalformedTokenError("a segment is not canonical base64url")
    return decoded


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """Parse a UTF-8 JSON object that has no duplicate names (RFC 8259 s4).

    Numbers with a fraction or an exponent become Decimals, so that nothing is rounded. Raises
    `MalformedTokenError`; `what` names the object in its message.
    """
    try:
        found = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=Decimal,
        )
        # A lone surrogate does not encode.
        json.dumps(found, ensure_ascii=False, default=str).encode("utf-8")
    except (ValueError, ArithmeticError, RecursionError):  # a Decimal's exponent is bounded
        raise MalformedTokenError(f"the {what} is not JSON or has a duplicate name") from None
    if not isinstance(found, dict):
        raise MalformedTokenError(f"the {what} is not an object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _no_constant(name: str) -> None:
    """Reject NaN and Infinity, which are not JSON."""
    raise ValueError(name)


def verified_by(jws: Jws, anchors: Iterable[Anchor], now: int) -> Anchor | None:
    """Return the first anchor that is valid now (Unix seconds) and whose key signed the token."""
    return next((a for a in anchors if a.valid(now) and _verifies(jws, a.key)), None)


def _verifies(jws: Jws, key: AnchorKey) -> bool:
    try:
        if jws.algorithm == "RS256" and isinstance(key, rsa.RSAPublicKey):
            key.verify(jws.signature, jws.signing_input, padding.PKCS1v15(), SHA256())
            return True
        if jws.algorithm == "ES256" and isinstance(key, ec.EllipticCurvePublicKey):
            return _ecdsa_verifies(jws, key)
    except InvalidSignature:
        pass
    return False


def _ecdsa_verifies(jws: Jws, key: ec.EllipticCurvePublicKey) -> bool:
    """Verify with P-256 only; r and s concatenated (RFC 7518 s3.4), or DER as some signers do."""
    if not isinstance(key.curve, ec.SECP256R1):
        return False
    signature = jws.signature
    if len(signature) == _P256_SIGNATURE:
        half = _P256_SIGNATURE // 2
        r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        # A DER signature may rarely have this length too, so a failure is not final.
        with contextlib.suppress(InvalidSignature):
            key.verify(encode_dss_signature(r, s), jws.signing_input, ec.ECDSA(SHA256()))
            return True
    key.verify(signature, jws.signing_input, ec.ECDSA(SHA256()))
    return True
