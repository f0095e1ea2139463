"""A certificate around any subject and subjectAltName, and the programs that must read it."""

import subprocess
import warnings
from functools import cache
from typing import Any, Final

from asn1crypto import x509 as asn1crypto_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.issuer.certificate import certificate, draft
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from tests.support.messages import DEVICE_NAME, SEQ, UTF8, name, oid, tlv
from tests.support.tools import need

KEY: Final = ec.derive_private_key(11, ec.SECP256R1())
ISSUER: Final = name(("2.5.4.3", UTF8, b"CA"))
_ALGORITHM: Final = tlv(SEQ, oid("1.2.840.10045.4.3.2"))


def certified(subject: bytes = DEVICE_NAME, sans: bytes = b"") -> bytes:
    """A signed certificate (DER) with these names, whatever they are."""
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = sans or b"\x04\x04abcd"
    extension = TemplateExtension(
        oid="2.5.29.17" if sans else "2.5.29.14", critical=False, value=value
    )
    template = CertificateTemplate(
        issuer="local",
        ca_spki_sha256="",
        subject=subject,
        spki=spki,
        not_before=1_700_000_000,
        not_after=1_800_000_000,
        extensions=(extension,),
    )
    tbs = draft(template, ISSUER, _ALGORITHM, b"secret", "attempt").tbs
    return certificate(tbs, _ALGORITHM, KEY.sign(tbs, ec.ECDSA(hashes.SHA256())))


def read_everywhere(der: bytes) -> None:
    """Load a certificate with `cryptography`, asn1crypto and OpenSSL, each looking at its names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about long names
        loaded = x509.load_der_x509_certificate(der)
        assert loaded.subject.public_bytes()
        assert all(extension.value for extension in loaded.extensions)
    read: Any = asn1crypto_x509.Certificate.load(der, strict=True)
    assert read["tbs_certificate"]["subject"].native is not None
    assert read["tbs_certificate"]["extensions"].native
    assert read_by_openssl(der)


@cache
def read_by_openssl(der: bytes) -> bool:
    command = [need("openssl", "openssl"), "x509", "-inform", "DER", "-noout", "-text"]
    return subprocess.run(command, input=der, capture_output=True, check=False).returncode == 0
