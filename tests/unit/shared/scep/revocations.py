"""CRLs as a CA signs them, made by `cryptography`."""

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PSS

from tests.support.messages import NOT_BEFORE, Named


def crl(
    by: Named,
    *serials: int,
    number: int = 1,
    digest: hashes.HashAlgorithm | None = None,
    pss: PSS | None = None,
) -> bytes:
    """A CRL with these serial numbers on it, by PKCS#1 v1.5 or ECDSA unless `pss` is given."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(by.x509.subject)
        .last_update(NOT_BEFORE)
        .next_update(NOT_BEFORE + dt.timedelta(days=7))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(revoked.revocation_date(NOT_BEFORE).build())
    made = builder.sign(by.key, digest or hashes.SHA256(), rsa_padding=pss)
    return made.public_bytes(serialization.Encoding.DER)
