"""CAs, RA pairs and key files for tests, made without the product's own makers."""

import datetime as dt
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from services.issuer.ceilings import Ceilings
from services.issuer.connectors.local import LocalCa
from shared.x509.key_ids import spki_sha256

START: Final = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
END: Final = dt.datetime(2044, 1, 1, tzinfo=dt.UTC)
CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def key_usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{each: each in names for each in every})


def make_certificate(
    public_key: Any,
    signing_key: Any,
    *,
    subject: str = "Test",
    issuer: str = "Test CA",
    usage: tuple[str, ...] | None = None,
    ca: bool | None = None,
    start: dt.datetime = START,
    end: dt.datetime = END,
    serial: int | None = None,
) -> x509.Certificate:
    """A certificate; without `usage` or `ca` those extensions are left out."""
    number = x509.random_serial_number() if serial is None else serial
    builder = x509.CertificateBuilder(
        name(issuer), name(subject), public_key, number, start, end
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if usage is not None:
        builder = builder.add_extension(key_usage(*usage), critical=True)
    return builder.sign(signing_key, hashes.SHA256())


def make_root(
    key: CaKey, subject: str = "Test CA", start: dt.datetime = START, end: dt.datetime = END
) -> x509.Certificate:
    """A self-signed CA certificate."""
    return make_certificate(
        key.public_key(), key, subject=subject, issuer=subject,
        usage=("key_cert_sign", "crl_sign"), ca=True, start=start, end=end,
    )  # fmt: skip


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def certificate_serial(certificate: bytes) -> bytes:
    """The contents of a certificate's serial number (DER in, INTEGER contents out)."""
    number = x509.load_der_x509_certificate(certificate).serial_number
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def spki(key: Any) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pin(certificate: x509.Certificate) -> str:
    return spki_sha256(spki(certificate.public_key()))


def ceilings(certificate: x509.Certificate) -> Ceilings:
    """Two years, and clientAuth alone."""
    return Ceilings(
        ca_spki_sha256=pin(certificate),
        ca_not_before=int(certificate.not_valid_before_utc.timestamp()),
        ca_not_after=int(certificate.not_valid_after_utc.timestamp()),
        max_ttl=2 * 365 * 86400,
        max_backdate=3600,
        extended_key_usages=frozenset({CLIENT_AUTH}),
    )


def local_ca(
    key: CaKey, subject: str = "Test CA", secret: bytes = b"s" * 32, **dates: dt.datetime
) -> LocalCa:
    """The issuer's connector over a root made here."""
    certificate = make_root(key, subject, **dates)
    return LocalCa(certificate, key, (der(certificate),), secret, ceilings(certificate))


def private_pem(key: Any) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Any) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_key(path: Path, key: Any, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(private_pem(key))
    path.chmod(mode)
    return path


def write_certificate(path: Path, *certificates: x509.Certificate) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in certificates))
    return path
