"""The device's side: its key, its CSR, its self-signed certificate."""

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import AttributeOID, NameOID

from shared.scep.asn1 import UTF8_STRING, tlv
from shared.scep.certificate import read_certificate
from shared.scep.signed_data import Signer

_UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
_BITS = (2048, 3072, 4096)
_GENERAL_NAMES: Final[dict[str, Callable[[str], x509.GeneralName]]] = {
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
    "ip": lambda value: x509.IPAddress(ipaddress.ip_address(value)),
    "upn": lambda value: x509.OtherName(_UPN, tlv(UTF8_STRING, value.encode())),
}


class RequestError(Exception):
    """Raised for options that make no request; the message says which."""


@dataclass(frozen=True)
class Identity:
    """A key and the self-signed certificate that signs requests with it."""

    key: rsa.RSAPrivateKey
    name: x509.Name
    signer: Signer

    @property
    def spki(self) -> bytes:
        """The public key as DER."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def transaction_id(self) -> str:
        """As RFC 8894 s3.2.1.1 suggests: a digest of the public key."""
        return hashlib.sha256(self.spki).hexdigest()


def make_key(kind: str) -> rsa.RSAPrivateKey:
    """A new key, `rsa:<bits>`."""
    algorithm, _, bits = kind.partition(":")
    if algorithm != "rsa" or bits not in map(str, _BITS):
        allowed = ", ".join(f"rsa:{b}" for b in _BITS)
        raise RequestError(f"--key {kind}: a SCEP reply is encrypted to an RSA key: {allowed}")
    return rsa.generate_private_key(65537, int(bits))


def key_pem(key: rsa.RSAPrivateKey) -> bytes:
    """The key as PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(pem: bytes) -> rsa.RSAPrivateKey:
    """A key written before."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise RequestError("key.pem holds no usable key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise RequestError("key.pem holds no RSA key")
    return key


def make_identity(key: rsa.RSAPrivateKey, common_name: str, now: float) -> Identity:
    """The key under a self-signed certificate of a day (RFC 8894 s2.3)."""
    try:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError as error:
        raise RequestError(f"--cn: {error}") from None
    moment = datetime.fromtimestamp(now, UTC)
    usage = x509.KeyUsage(
        digital_signature=True, key_encipherment=True, content_commitment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(),
            moment - timedelta(minutes=10), moment + timedelta(days=1),
        )
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    der = certificate.public_bytes(Encoding.DER)
    return Identity(key, name, Signer(key, read_certificate(der)))


def make_csr(identity: Identity, challenge: str | None, sans: list[str]) -> bytes:
    """A PKCS#10 with challengePassword and SANs, as DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(identity.name)
    if sans:
        names = x509.SubjectAlternativeName([general_name(san) for san in sans])
        builder = builder.add_extension(names, critical=False)
    if challenge:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    return builder.sign(identity.key, hashes.SHA256()).public_bytes(Encoding.DER)


def general_name(text: str) -> x509.GeneralName:
    """`dns:`, `email:`, `ip:`, `uri:` or `upn:` and a value; a bare value is a DNS name."""
    kind, colon, value = text.partition(":")
    if not colon:
        kind, value = "dns", text
    if not value:
        raise RequestError(f"--san {text}: there is no value")
    make = _GENERAL_NAMES.get(kind.lower())
    if make is None:
        raise RequestError(f"--san {text}: write dns:, email:, ip:, uri: or upn: and a value")
    try:
        return make(value)
    except ValueError as error:
        raise RequestError(f"--san {text}: {error}") from None
