"""A CA whose key is in a file: signs templates itself."""

from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from services.issuer.certificate import certificate, serial_number, tbs_certificate
from services.issuer.profiles import Ceilings, spki_sha256
from shared.events import CertificateTemplate
from shared.keys import CaKey, check_pair, read_ca_key, read_certificates, spki
from shared.scep.asn1 import NULL, SEQUENCE, object_identifier, tlv
from shared.scep.certificate import read_certificate
from shared.sections import Configuration, LocalIssuerSection
from shared.settings import SettingsError, read_secret_file
from shared.signatures import PublicKey, is_issued_by
from shared.x509names import EXTENDED_KEY_USAGES

_RSA_SHA256 = tlv(SEQUENCE, object_identifier("1.2.840.113549.1.1.11"), NULL)
_ECDSA_SHA256 = tlv(SEQUENCE, object_identifier("1.2.840.10045.4.3.2"))
_MIN_SECRET = 32


class SigningError(Exception):
    """Raised where what was signed is not what was asked for: a fault, never a refusal."""


@dataclass(frozen=True)
class LocalCa:
    """The CA's certificate and key, what stands above it, and its ceilings."""

    certificate: x509.Certificate
    key: CaKey
    chain: tuple[bytes, ...]
    secret: bytes
    ceilings: Ceilings

    @property
    def algorithm(self) -> bytes:
        """The AlgorithmIdentifier of its signatures."""
        return _RSA_SHA256 if isinstance(self.key, rsa.RSAPrivateKey) else _ECDSA_SHA256

    @cached_property
    def name(self) -> bytes:
        """Its subject, byte for byte."""
        return read_certificate(self.chain[0]).subject

    def serial(self, template: CertificateTemplate) -> bytes:
        """The serial number that follows from the template."""
        return serial_number(template, self.name, self.algorithm, self.secret)

    def sign(self, template: CertificateTemplate, serial: bytes) -> bytes:
        """The certificate as DER, checked against the CA's key before anyone sees it."""
        tbs = tbs_certificate(template, self.name, self.algorithm, serial)
        if isinstance(self.key, rsa.RSAPrivateKey):
            signature = self.key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = self.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
        der = certificate(tbs, self.algorithm, signature)
        self._check(der, template)
        return der

    def _check(self, der: bytes, template: CertificateTemplate) -> None:
        """A faulty signature gives an RSA key away, and a wrong one breaks a device: look first."""
        ca_key = self.certificate.public_key()
        if not isinstance(ca_key, PublicKey) or not is_issued_by(der, self.name, ca_key):
            raise SigningError("the signed certificate does not verify")
        parsed = read_certificate(der)
        if (parsed.subject, parsed.spki) != (template.subject, template.spki):
            raise SigningError("the signed certificate is not the template's")


def read_local_ca(configuration: Configuration, section: LocalIssuerSection) -> LocalCa:
    """Read a CA from its files; `SettingsError` names the one that is wrong."""
    cert_path = configuration.path(section.ca_cert_path)
    key_path = configuration.path(section.ca_key_path)
    own = read_certificates(cert_path)
    key = read_ca_key(key_path)
    check_pair(own[0], key, cert_path, key_path)
    above = read_certificates(configuration.path(section.chain_path)) if section.chain_path else []
    secret_path = configuration.path(section.secret_path)
    secret = read_secret_file(secret_path)
    if len(secret) < _MIN_SECRET:
        raise SettingsError(f"{secret_path}: shorter than {_MIN_SECRET} bytes")
    return LocalCa(
        certificate=own[0],
        key=key,
        chain=tuple(c.public_bytes(Encoding.DER) for c in (*own, *above)),
        secret=secret,
        ceilings=_ceilings(section, own[0]),
    )


def _ceilings(section: LocalIssuerSection, ca: x509.Certificate) -> Ceilings:
    return Ceilings(
        ca_spki_sha256=spki_sha256(spki(ca)),
        ca_not_after=int(ca.not_valid_after_utc.timestamp()),
        max_ttl=int(section.max_ttl),
        extended_key_usages=frozenset(
            EXTENDED_KEY_USAGES.get(name, name) for name in section.extended_key_usages
        ),
    )
