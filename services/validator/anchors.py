"""Connectors' certificates out of PEM bundles: all of a profile's, or the reason why not."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from services.validator.challenges.jws import Anchor
from services.validator.challenges.token import AnchorPool
from shared.names import name_text
from shared.settings import SettingsError, read_file

_MIN_BITS: Final = 2048
_BEGIN: Final = re.compile(rb"^-----BEGIN ", re.MULTILINE)
_END: Final = re.compile(rb"^-----END CERTIFICATE-----\s*$", re.MULTILINE)


@dataclass(frozen=True)
class AnchorFiles:
    """Where a profile's anchors stand: one bundle for all, and those of tenants by `iss`."""

    common: Path | None
    tenants: Mapping[str, Path] = field(default_factory=dict)

    def read(self, now: float) -> AnchorPool:
        """Every bundle, or `SettingsError` with the first that is wrong; `now` in Unix seconds."""
        digest = hashlib.sha256()
        common = _read_bundle(self.common, now, digest) if self.common else ()
        tenants = {
            issuer: _read_bundle(path, now, digest) for issuer, path in sorted(self.tenants.items())
        }
        return AnchorPool(common, tenants, digest.hexdigest())


def _read_bundle(path: Path, now: float, digest: "hashlib._Hash") -> tuple[Anchor, ...]:
    """The anchors of a file, whole and each fit for use now."""
    data = read_file(path)
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise SettingsError(f"{path}: holds no certificate in PEM, or one that is broken") from None
    if not len(certificates) == len(_BEGIN.findall(data)) == len(_END.findall(data)):
        raise SettingsError(f"{path}: is not whole, or holds more than certificates")
    for certificate in certificates:
        digest.update(certificate.public_bytes(Encoding.DER))
    return tuple(_anchor(path, certificate, now) for certificate in certificates)


def _anchor(path: Path, certificate: x509.Certificate, now: float) -> Anchor:
    subject = name_text(certificate.subject.public_bytes())
    not_after = int(certificate.not_valid_after_utc.timestamp())
    if not_after <= now:
        raise SettingsError(
            f"{path}: the certificate of {subject} has expired on "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    not_before = int(certificate.not_valid_before_utc.timestamp())
    try:
        key = certificate.public_key()
    except (ValueError, TypeError):
        key = None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_BITS:
        return Anchor(subject, not_before, not_after, key)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return Anchor(subject, not_before, not_after, key)
    raise SettingsError(
        f"{path}: the key of {subject} is neither RSA of {_MIN_BITS} bits or more nor on P-256"
    )
