"""Devices' keys and CSRs, and the orders that validators would have approved for them."""

import itertools
import time
from dataclasses import replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

from services.issuer.connectors.connector import Order
from shared.log.events.enrollment import TemplateExtension
from tests.support import pki
from tests.support.templates import KEY_USAGE, template

CHALLENGE: Final = "ch4llenge-of-the-d3vice"
_numbers = itertools.count()


def order(ca: x509.Certificate, name: str = "", **changes: Any) -> Order:
    """An order for a new key: CN and DNS name, clientAuth, 90 days; `changes` of its template."""
    name = name or f"device-{next(_numbers)}.example"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    sans = x509.SubjectAlternativeName([x509.DNSName(name)])
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    csr = (
        x509.CertificateSigningRequestBuilder(subject)
        .add_extension(sans, critical=False)
        .add_extension(usages, critical=False)
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, CHALLENGE.encode())
        .sign(key, hashes.SHA256())
    )
    now = int(time.time())
    values: dict[str, Any] = {
        "subject": subject.public_bytes(),
        "spki": pki.spki(key.public_key()),
        "not_before": now - 600,
        "not_after": now + 90 * 86400,
        "extensions": (
            KEY_USAGE,
            TemplateExtension(oid="2.5.29.37", critical=False, value=usages.public_bytes()),
            TemplateExtension(oid="2.5.29.17", critical=False, value=sans.public_bytes()),
        ),
    }
    made = template(ca, **(values | changes))
    attempt = f"enroll.0.corp.{'a' * 26}.{'b' * 26}.{next(_numbers)}"
    return Order(attempt, made, "ab" * 32, csr.public_bytes(Encoding.DER))


def again(asked: Order) -> Order:
    """The same order as another issuer would find it on the log: without the CSR."""
    return replace(asked, csr=b"")
