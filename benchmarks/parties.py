"""Temporary keys, certificates and CSRs: a CA, its RA, and devices that enroll."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AttributeOID, NameOID

_SIGNING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Party:
    """A key and its certificate."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def new_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def spki(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "benchmarks"),
        ]
    )


def _builder(subject: x509.Name, key: rsa.RSAPublicKey, days: int) -> x509.CertificateBuilder:
    """Return all but the issuer; validity began an hour ago, to tolerate clocks that differ."""
    start = now() - timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )


def new_ca() -> Party:
    """Create a self-signed CA."""
    key, subject = new_key(), name("Benchmark CA")
    builder = _builder(subject, key.public_key(), 365).issuer_name(subject)
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    builder = builder.add_extension(constraints, critical=True)
    return Party(key, builder.sign(key, hashes.SHA256()))


def issue(ca: Party, common_name: str, key: rsa.RSAPublicKey) -> x509.Certificate:
    """Issue an RA's or a device's certificate."""
    builder = _builder(name(common_name), key, 30).issuer_name(ca.certificate.subject)
    builder = builder.add_extension(_SIGNING, critical=True)
    return builder.sign(ca.key, hashes.SHA256())


def new_ra(ca: Party) -> Party:
    key = new_key()
    return Party(key, issue(ca, "Benchmark RA", key.public_key()))


def self_signed(common_name: str, key: rsa.RSAPrivateKey) -> Party:
    """Create the certificate with which a device signs its first request (RFC 8894 s2.3)."""
    subject = name(common_name)
    builder = _builder(subject, key.public_key(), 7).issuer_name(subject)
    builder = builder.add_extension(_SIGNING, critical=True)
    return Party(key, builder.sign(key, hashes.SHA256()))


def certification_request(common_name: str, key: rsa.RSAPrivateKey, challenge: str) -> bytes:
    """Return a PKCS#10 request with one DNS name, and a challengePassword unless it is empty."""
    dns = x509.SubjectAlternativeName([x509.DNSName(f"{common_name}.example.test")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common_name))
    builder = builder.add_extension(dns, critical=False)
    if challenge:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
