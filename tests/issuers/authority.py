"""The CA behind a fake: it signs what a CSR or an API call asks for, and remembers it."""

import datetime as dt
import secrets
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import pki


@dataclass
class FakeCa:
    """A CA with an EC key; `made` are its certificates by serial number (hex, no leading 00)."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    made: dict[str, bytes] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = pki.make_root(self.key, f"Fake CA {secrets.token_hex(4)}")

    def sign(
        self,
        csr: x509.CertificateSigningRequest,
        not_after: dt.datetime,
        *,
        key_usage: x509.KeyUsage | None = None,
        extended: tuple[str, ...] = (pki.CLIENT_AUTH,),
    ) -> bytes:
        """A certificate (DER) with the CSR's key, subject and subjectAltNames."""
        usage = key_usage or pki.key_usage("digital_signature", "key_encipherment")
        begins = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(seconds=30)
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.certificate.subject)
            .subject_name(csr.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(not_after)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in extended]),
                critical=False,
            )
        )
        for extension in csr.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                builder = builder.add_extension(extension.value, critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        der = signed.public_bytes(Encoding.DER)
        self.made[f"{signed.serial_number:x}"] = der
        return der

    async def everything(self) -> list[bytes]:
        """All certificates that it made."""
        return list(self.made.values())

    async def is_revoked(self, serial: str) -> bool:
        """Whether a serial number (hex of the INTEGER's contents) is revoked."""
        return f"{int(serial, 16):x}" in self.revoked
