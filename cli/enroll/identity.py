"""A device's key, CSR and self-signed certificate."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from cli.enroll.csr import CsrForm, Key, write_csr
from cli.san import san_parts
from shared.scep.algorithms import SHA256
from shared.scep.asn1 import UTF8_STRING, Der, text, tlv
from shared.scep.certificate import read_certificate
from shared.scep.schemes import ECDSA_SIGNATURE, PKCS1V15_SIGNATURE
from shared.scep.schemes import pss as pss_scheme
from shared.scep.signed_data import Signer
from shared.x509.loading import loading

_UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
_PLAIN: Final = CsrForm()
_BITS = (2048, 3072, 4096)
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "ec:p256": ec.SECP256R1(),
    "ec:p384": ec.SECP384R1(),
    "ec:p521": ec.SECP521R1(),
}
_GENERAL_NAMES: Final[dict[str, Callable[[str], x509.GeneralName]]] = {
    "dns": x509.DNSName,
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
    "ip": lambda value: x509.IPAddress(ipaddress.ip_address(value)),
    "upn": lambda value: x509.OtherName(_UPN, tlv(UTF8_STRING, value.encode())),
}


class RequestError(Exception):
    """Raised for options from which no request can be made; the message names the option."""


@dataclass(frozen=True)
class Identity:
    """A key to certify, its name, and the signer of its messages.

    The signer is the key itself, a separate key, or in a renewal that of the old certificate.
    """

    key: Key
    name: x509.Name
    signer: Signer
    signing_key: Key

    @property
    def spki(self) -> bytes:
        """The SubjectPublicKeyInfo as DER."""
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def make_key(kind: str) -> Key:
    """Generate a key, `rsa:<bits>` or `ec:<curve>`."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    algorithm, _, bits = kind.partition(":")
    if algorithm != "rsa" or bits not in map(str, _BITS):
        allowed = ", ".join([*(f"rsa:{b}" for b in _BITS), *_CURVES])
        raise RequestError(f"no such type of key: {kind}; choose one of {allowed}")
    return rsa.generate_private_key(65537, int(bits))


def key_pem(key: Key) -> bytes:
    """Return the key as PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(pem: bytes, name: str) -> Key:
    """Load a key that an earlier run wrote; `name` is for the error."""
    try:
        with loading():
            key = load_pem_private_key(pem, None)
    except ValueError:
        raise RequestError(f"{name} holds no usable key") from None
    if not isinstance(key, Key):
        raise RequestError(f"{name} holds neither an RSA nor an EC key")
    return key


def make_identity(
    key: Key, common_name: str, now: float, *, pss: bool = False, key_id: bool = False
) -> Identity:
    """Return a self-signed identity with this common name; see `self_signed`."""
    try:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError as error:
        raise RequestError(f"--cn: {error}") from None
    return self_signed(key, name, now, pss=pss, key_id=key_id)


def self_signed(
    key: Key, name: x509.Name, now: float, *, pss: bool = False, key_id: bool = False
) -> Identity:
    """Return an identity with a self-signed certificate, valid for a day (RFC 8894 s2.3).

    `key_id` adds a critical authorityKeyIdentifier.
    """
    moment = datetime.fromtimestamp(now, UTC)
    usage = x509.KeyUsage(
        digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey),
        content_commitment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(),
        moment - timedelta(minutes=10), moment + timedelta(days=1),
    ).add_extension(usage, critical=True)  # fmt: skip
    if key_id:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=True)
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    return Identity(key, name, signer_of(key, der, pss=pss), key)


def signed_by(identity: Identity, signer: Identity) -> Identity:
    """Return the identity with another signer, whose key also decrypts the replies."""
    return replace(identity, signer=signer.signer, signing_key=signer.key)


def renewing(key: Key, old_key: Key, old: x509.Certificate, *, pss: bool = False) -> Identity:
    """Return the identity of a renewal: `key` with the old certificate's name and signer."""
    der = old.public_bytes(Encoding.DER)
    return Identity(key, old.subject, signer_of(old_key, der, pss=pss), old_key)


def signer_of(key: Key, certificate: bytes, *, pss: bool) -> Signer:
    """Return the signer for messages with this key and certificate (DER)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return Signer(key, read_certificate(certificate), ECDSA_SIGNATURE)
    scheme = pss_scheme(SHA256) if pss else PKCS1V15_SIGNATURE
    return Signer(key, read_certificate(certificate), scheme)


def make_csr(
    identity: Identity, challenge: str | None, sans: list[str], form: CsrForm = _PLAIN
) -> bytes:
    """Return a PKCS#10 request with challengePassword and subjectAltNames, as DER."""
    names = x509.SubjectAlternativeName([general_name(san) for san in sans]) if sans else None
    return make_renewal_csr(identity, challenge, names, form)


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    """Return the subjectAltName of a certificate, which its renewal requests again, or None."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    return found.value


def common_name(certificate: x509.Certificate) -> str:
    """Return the common name in a certificate, "" if it has none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def san_texts(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the subjectAltNames that have claims in signed challenges, in the form of `--san`."""
    names = names_of(certificate)
    if names is None:
        return ()
    upns = (n for n in names.get_values_for_type(x509.OtherName) if n.type_id == _UPN)
    return (
        *(f"dns:{value}" for value in names.get_values_for_type(x509.DNSName)),
        *(f"email:{value}" for value in names.get_values_for_type(x509.RFC822Name)),
        *(f"upn:{text(*Der(upn.value).any())}" for upn in upns),
    )


def make_renewal_csr(
    identity: Identity,
    challenge: str | None,
    names: x509.SubjectAlternativeName | None,
    form: CsrForm = _PLAIN,
) -> bytes:
    """Return a PKCS#10 request with the names of the certificate to renew, as DER."""
    return write_csr(identity.key, identity.name.public_bytes(), challenge, names, form)


def general_name(text: str) -> x509.GeneralName:
    """Parse a name in the form of `--san`; see `san_parts`."""
    try:
        kind, value = san_parts(text)
    except ValueError as error:
        raise RequestError(f"--san {error}") from None
    try:
        return _GENERAL_NAMES[kind](value)
    except ValueError as error:
        raise RequestError(f"--san {text}: {error}") from None
