"""Create the CA, RA and TLS certificates of `up`."""

import ipaddress
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.config.keys import CaKey
from shared.x509.key_ids import authority_key_id

CA_KINDS: Final = ("rsa:2048", "rsa:3072", "rsa:4096", "ec:p256")
CA_LIFETIME: Final = timedelta(days=3652)
RA_LIFETIME: Final = timedelta(days=730)
TLS_LIFETIME: Final = timedelta(days=365)
_BACKDATE: Final = timedelta(minutes=10)
_RA_USAGES: Final = {
    "signing": ("digital_signature",),
    "encryption": ("key_encipherment",),
    "combined": ("digital_signature", "key_encipherment"),
}
# Certificate Request Agent: Windows rejects RA certificates without it. emailProtection: without
# it, OpenSSL verifies the RA's signatures with `-purpose any` only.
_RA_EXTENDED_USAGES: Final = (
    x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.1"),
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
)


@dataclass(frozen=True)
class Authority:
    """A CA's certificate and key, and the certificates above it, nearest first."""

    certificate: x509.Certificate
    key: CaKey
    above: tuple[x509.Certificate, ...] = ()


def pem(key: CaKey) -> bytes:
    """Return a private key as PEM, without a password: the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def make_ca(kind: str, now: float) -> Authority:
    """Create a self-signed root with a random name; `kind` is one of `CA_KINDS`."""
    key: CaKey = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ec:p256"
        else rsa.generate_private_key(65537, int(kind.partition(":")[2]))
    )
    name = _name(f"scepstream CA {secrets.token_hex(4)}")
    start = datetime.fromtimestamp(now, UTC) - _BACKDATE
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage("digital_signature", "key_cert_sign", "crl_sign"), critical=True)
        .add_extension(key_id, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def ra_use(certificate: x509.Certificate) -> str:
    """Return the `use` of an RA certificate, as in `make_ra`; "combined" without a KeyUsage."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return "combined"
    if usage.digital_signature and usage.key_encipherment:
        return "combined"
    return "signing" if usage.digital_signature else "encryption"


def make_ra(ca: Authority, use: str, now: float) -> bytes:
    """Create an RA certificate and key in one PEM; `use` is signing, encryption or combined."""
    key = rsa.generate_private_key(65537, 2048)
    start = datetime.fromtimestamp(now, UTC) - _BACKDATE
    end = min(start + RA_LIFETIME, ca.certificate.not_valid_after_utc)
    usage = _usage(*_RA_USAGES[use])
    certificate = (
        x509.CertificateBuilder(
            ca.certificate.subject, _name(f"scepstream RA {use}"), key.public_key(),
            x509.random_serial_number(), start, end,
        )
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(_RA_EXTENDED_USAGES), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key_id(ca.certificate), critical=False)
        .sign(ca.key, hashes.SHA256())
    )  # fmt: skip
    return certificate.public_bytes(Encoding.PEM) + pem(key)


def make_tls(ca: Authority, hosts: list[str], now: float) -> bytes:
    """Create a TLS server certificate for these names and addresses, and its key, in one PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.fromtimestamp(now, UTC) - _BACKDATE
    end = min(start + TLS_LIFETIME, ca.certificate.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder(
            ca.certificate.subject, _name(hosts[0]), key.public_key(),
            x509.random_serial_number(), start, end,
        )
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority_key_id(ca.certificate), critical=False)
        .sign(ca.key, hashes.SHA256())
    )  # fmt: skip
    return certificate.public_bytes(Encoding.PEM) + pem(key)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
