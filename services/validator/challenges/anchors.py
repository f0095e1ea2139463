"""Reads connectors' certificates from PEM bundles or DER: all of a profile's, or an error."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from services.validator.challenges.jws import Anchor
from services.validator.challenges.token import AnchorPool
from shared.config.load import SettingsError, read_file
from shared.x509.loading import loading
from shared.x509.names import name_text

_MIN_BITS: Final = 2048
_BLOCK: Final = re.compile(
    rb"^-----BEGIN CERTIFICATE-----\s*?$.*?^-----END CERTIFICATE-----\s*?$",
    re.MULTILINE | re.DOTALL,
)
_BOM: Final = b"\xef\xbb\xbf"
_DER: Final = b"\x30"  # a SEQUENCE
# What remains of a truncated block, or of a block of another kind.
_DASHES: Final = re.compile(rb"^-", re.MULTILINE)


@dataclass(frozen=True)
class AnchorFiles:
    """Where a profile's anchors are: one common bundle, and those of tenants by `iss`."""

    common: Path | None
    tenants: Mapping[str, Path] = field(default_factory=dict)

    def read(self, now: float) -> AnchorPool:
        """Read every bundle; `now` is in Unix seconds. Raises `SettingsError` for a bad one."""
        digest = hashlib.sha256()
        common = _read_bundle(self.common, now, digest) if self.common else ()
        tenants = {}
        for issuer, path in sorted(self.tenants.items()):
            digest.update(hashlib.sha256(issuer.encode("utf-8", "replace")).digest())
            tenants[issuer] = _read_bundle(path, now, digest)
        return AnchorPool(common, tenants, digest.hexdigest())


def _read_bundle(path: Path, now: float, digest: "hashlib._Hash") -> tuple[Anchor, ...]:
    """Read the anchors of a file; each must be intact, unexpired and have a supported key."""
    data = _as_pem(read_file(path).removeprefix(_BOM))
    if _DASHES.search(_BLOCK.sub(b"", data)):
        raise SettingsError(f"{path}: is truncated, or contains something other than certificates")
    try:
        certificates = x509.load_pem_x509_certificates(data)
        anchors = tuple(_anchor(path, certificate, now) for certificate in certificates)
    except SettingsError:
        raise
    except Exception:  # noqa: BLE001 - parsers raise many kinds, most of them late
        raise SettingsError(f"{path}: no certificate in PEM or DER, or an invalid one") from None
    for certificate in certificates:
        digest.update(hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest())
    return anchors


def _as_pem(data: bytes) -> bytes:
    """Convert one DER certificate, as Windows exports a .cer, to PEM; return other data as is."""
    if not data.startswith(_DER):
        return data
    try:
        with loading():
            return x509.load_der_x509_certificate(data).public_bytes(Encoding.PEM)
    except ValueError:
        return data


def _anchor(path: Path, certificate: x509.Certificate, now: float) -> Anchor:
    subject = name_text(certificate.subject.public_bytes())
    not_after = int(certificate.not_valid_after_utc.timestamp())
    if not_after <= now:
        raise SettingsError(
            f"{path}: the certificate of {subject} expired on "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    not_before = int(certificate.not_valid_before_utc.timestamp())
    key, sha256 = _key(certificate), certificate.fingerprint(SHA256()).hex()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_BITS:
        return Anchor(subject, not_before, not_after, key, sha256)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return Anchor(subject, not_before, not_after, key, sha256)
    raise SettingsError(
        f"{path}: the key of {subject} is neither RSA of {_MIN_BITS} bits or more nor on P-256"
    )


def _key(certificate: x509.Certificate) -> object:
    """Return the certificate's public key, or None if `cryptography` does not support its kind."""
    try:
        return certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
