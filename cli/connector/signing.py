"""A connector's certificate and key, and the challenges that it signs for devices (RFC 7515)."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cli.san import san_parts
from cli.up.authority import pem
from shared.config.keys import CaKey, check_pair, read_ca_key_file
from shared.x509.loading import loading

KINDS: Final = ("rsa:2048", "rsa:3072", "ec:p256")
CERTIFICATE: Final = "connector.pem"
KEY: Final = "connector.key"
LIFETIME: Final = timedelta(days=365)
_BACKDATE: Final = timedelta(minutes=10)
_HALF: Final = 32


@dataclass(frozen=True)
class ChallengeClaims:
    """The claims (version 1) of a signed challenge, and its lifetime `ttl` in seconds.

    A claim that is None is left out of the challenge.
    """

    subject: str
    device_name: str | None = None
    san_dns: tuple[str, ...] | None = None
    san_rfc822: tuple[str, ...] | None = None
    san_upn: tuple[str, ...] | None = None
    audience: str | None = None
    ttl: int = 3600

    @classmethod
    def for_device(
        cls, subject: str, cn: str, sans: Sequence[str], audience: str | None, ttl: int = 3600
    ) -> "ChallengeClaims":
        """Return the claims for these names; `sans` have the form of `enroll --san`.

        Kinds of names that have no claim are left out. `ValueError` if a name is malformed.
        """
        parts = [san_parts(san) for san in sans]

        def values(kind: str) -> tuple[str, ...] | None:
            return tuple(value for each, value in parts if each == kind) or None

        return cls(subject, cn, values("dns"), values("email"), values("upn"), audience, ttl)

    def claims(self, issuer: str, nonce: str, now: int) -> dict[str, Any]:
        """Return the JWT claims; times are in Unix seconds."""
        optional = {
            "aud": self.audience,
            "device_name": self.device_name,
            "san_dns": self.san_dns,
            "san_rfc822": self.san_rfc822,
            "san_upn": self.san_upn,
        }
        return {
            "version": "v1",
            "iss": issuer,
            "sub": self.subject,
            "iat": now,
            "exp": now + self.ttl,
            "nonce": nonce,
            **{name: value for name, value in optional.items() if value is not None},
        }


def make_key(kind: str) -> CaKey:
    """Generate a signing key: RSA for RS256, P-256 for ES256."""
    if kind == "ec:p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(kind.partition(":")[2]))


def make_certificate(key: CaKey, name: str, now: float) -> bytes:
    """Return a self-signed certificate as PEM, valid for a year: the anchor of a profile."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.fromtimestamp(now, UTC) - _BACKDATE
    certificate = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(),
            start, start + _BACKDATE + LIFETIME,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return certificate.public_bytes(Encoding.PEM)


def connector_files(kind: str, name: str, now: float) -> tuple[bytes, bytes]:
    """Return (certificate, key) of a new connector, as PEM."""
    key = make_key(kind)
    return make_certificate(key, name, now), pem(key)


@dataclass(frozen=True)
class Connector:
    """A connector's key; `name` is the `iss` of the challenges that it signs."""

    key: CaKey
    name: str

    @classmethod
    def read(cls, directory: Path) -> "Connector":
        """Load a directory's connector; `SettingsError`, `ValueError` or `OSError` on failure."""
        cert_path, key_path = directory / CERTIFICATE, directory / KEY
        with loading():
            certificate = x509.load_pem_x509_certificate(cert_path.read_bytes())
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        key = read_ca_key_file(key_path)
        check_pair(certificate, key, cert_path, key_path)
        return cls(key, str(name.value))

    def mint(self, claims: ChallengeClaims, nonce: str, now: int) -> str:
        """Return a signed challenge: RS256 or ES256, depending on the key."""
        rs256 = isinstance(self.key, rsa.RSAPrivateKey)
        header = {"alg": "RS256" if rs256 else "ES256", "typ": "JWT"}
        parts = [_encode(_json(header)), _encode(_json(claims.claims(self.name, nonce, now)))]
        signature = self._sign(".".join(parts).encode("ascii"))
        return ".".join([*parts, _encode(signature)])

    def _sign(self, data: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
