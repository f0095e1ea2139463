"""The authority that the client trusts: GetCACert's certificates, pinned by file or fingerprint."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.config.keys import is_ca
from shared.scep.cacert import read_ca_certs
from shared.scep.certificate import Certificate, read_certificate
from shared.x509.loading import loading


class UntrustedError(Exception):
    """Raised if the server's certificates are not the pinned ones, or are inconsistent."""


@dataclass(frozen=True)
class Authority:
    """The issuing CA, the recipient of requests, the signers of replies (DER), and the chain."""

    ca: x509.Certificate
    recipient: Certificate
    signers: tuple[bytes, ...]
    chain: tuple[x509.Certificate, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the CA certificate, in hex."""
        return self.ca.fingerprint(hashes.SHA256()).hex()


def read_authority(body: bytes) -> Authority:
    """Sort GetCACert's certificates into CA, recipient and signers; the CA must issue all RAs.

    `UntrustedError` if they do not fit together, `ValueError` if one of them does not load.
    """
    ders = read_ca_certs(body)
    with loading():
        certificates = [x509.load_der_x509_certificate(der) for der in ders]
        for certificate in certificates:
            certificate.public_key()
    cas = [c for c in certificates if is_ca(c)]
    if not cas:
        raise UntrustedError("GetCACert returned no CA certificate")
    ras = [(c, der) for c, der in zip(certificates, ders, strict=True) if c not in cas]
    issuing = next((ca for ca in cas if any(_issued(ca, ra) for ra, _ in ras)), cas[0])
    if any(not _issued(issuing, ra) for ra, _ in ras):
        raise UntrustedError("GetCACert returned an RA certificate that its CA did not issue")
    own = [(c, d) for c, d in zip(certificates, ders, strict=True) if c == issuing]
    candidates = ras or own
    recipient = next((der for c, der in candidates if _usable(c, "key_encipherment")), None)
    if recipient is None:
        raise UntrustedError("GetCACert returned no certificate to encrypt requests to")
    signers = tuple(der for c, der in candidates if _usable(c, "digital_signature"))
    return Authority(issuing, read_certificate(recipient), signers, _chain(issuing, cas))


def _chain(issuing: x509.Certificate, cas: list[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return the issuing CA and those above it; CAs that issued none of the chain are left out."""
    chain = [issuing]
    while above := [ca for ca in cas if ca not in chain and _issued(ca, chain[-1])]:
        chain.append(above[0])
    return tuple(chain)


def check_pin(
    authority: Authority, pinned: x509.Certificate | None, fingerprint: str | None
) -> bool:
    """Return whether the CA is pinned; `UntrustedError` if it does not match the pin."""
    if pinned is not None:
        if authority.ca != pinned and not _issued(pinned, authority.ca):
            raise UntrustedError("the server's CA is neither the one in --ca-file nor issued by it")
        return True
    if fingerprint is not None:
        wanted = fingerprint.replace(":", "").replace(" ", "").lower()
        if wanted != authority.fingerprint:
            raise UntrustedError(
                f"--fingerprint does not match: the CA's fingerprint is {authority.fingerprint}"
            )
        return True
    return False


def issued_by(authority: Authority, certificate: x509.Certificate) -> bool:
    """Return whether one of the CAs signed a certificate."""
    return any(_issued(ca, certificate) for ca in authority.chain)


def _issued(ca: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _usable(certificate: x509.Certificate, usage: str) -> bool:
    """Return whether an RSA certificate allows a usage.

    A certificate without KeyUsage and a CA certificate (a CA without RA) allow any.
    """
    if not isinstance(certificate.public_key(), rsa.RSAPublicKey):
        return False
    try:
        found = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return bool(getattr(found, usage)) or is_ca(certificate)
