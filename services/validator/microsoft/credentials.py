"""Credentials of an app in Entra ID: a client secret, or a certificate that signs assertions."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

ASSERTION_SECONDS: Final = 600
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Credential(Protocol):
    """What an app proves itself with; `not_after` in Unix seconds, 0 if unknown.

    `fingerprint` tells credentials apart and does not reveal a secret.
    """

    @property
    def kind(self) -> str:
        """Return "secret" or "certificate"."""

    @property
    def fingerprint(self) -> str:
        """Return a hash of the credential."""

    @property
    def not_after(self) -> float:
        """Return when it ends."""

    def proof(self, client_id: str, token_url: str, now: float, jti: str) -> Mapping[str, str]:
        """Return the fields of a token request that prove the app's identity."""


@dataclass(frozen=True, slots=True)
class SecretCredential:
    """A client secret."""

    secret: str = field(repr=False)
    kind: str = "secret"
    not_after: float = 0.0

    @property
    def fingerprint(self) -> str:
        """See `Credential.fingerprint`."""
        return hashlib.sha256(b"scepstream secret\0" + self.secret.encode()).hexdigest()

    def proof(self, client_id: str, token_url: str, now: float, jti: str) -> Mapping[str, str]:
        """See `Credential.proof`."""
        del client_id, token_url, now, jti
        return {"client_secret": self.secret}


@dataclass(frozen=True, slots=True)
class CertificateCredential:
    """A certificate and its key; with `sha1` as older Entra ID clients sign (RS256 and x5t)."""

    certificate: x509.Certificate = field(repr=False)
    key: rsa.RSAPrivateKey = field(repr=False)
    sha1: bool = False
    kind: str = "certificate"

    @property
    def fingerprint(self) -> str:
        """See `Credential.fingerprint`."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def not_after(self) -> float:
        """See `Credential.not_after`."""
        return self.certificate.not_valid_after_utc.timestamp()

    def proof(self, client_id: str, token_url: str, now: float, jti: str) -> Mapping[str, str]:
        """See `Credential.proof`; an assertion (RFC 7523) that is valid for ten minutes."""
        claims = {
            "aud": token_url,
            "iss": client_id,
            "sub": client_id,
            "jti": jti,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + ASSERTION_SECONDS,
        }
        signed = f"{_part(self._header())}.{_part(claims)}"
        signature = self.key.sign(signed.encode("ascii"), self._padding(), hashes.SHA256())
        return {
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": f"{signed}.{_url64(signature)}",
        }

    def _header(self) -> Mapping[str, object]:
        if self.sha1:
            # Names the certificate; the signature is over SHA-256.
            thumbprint = self.certificate.fingerprint(hashes.SHA1())  # noqa: S303
            return {"alg": "RS256", "typ": "JWT", "x5t": _url64(thumbprint)}
        encoded = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode("ascii")
        thumbprint = self.certificate.fingerprint(hashes.SHA256())
        return {"alg": "PS256", "typ": "JWT", "x5t#S256": _url64(thumbprint), "x5c": [encoded]}

    def _padding(self) -> padding.PKCS1v15 | padding.PSS:
        if self.sha1:
            return padding.PKCS1v15()
        return padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


def _part(table: Mapping[str, object]) -> str:
    return _url64(msgspec.json.encode(table))


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
