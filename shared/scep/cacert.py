"""GetCACert: one certificate, or RA certificates and CA chain together (RFC 8894 s4.2)."""

from collections.abc import Sequence
from typing import Final

from shared.scep import cms, signed_data
from shared.scep.asn1 import SEQUENCE, Der
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

ONE_CERTIFICATE: Final = "application/x-x509-ca-cert"
SEVERAL_CERTIFICATES: Final = "application/x-x509-ca-ra-cert"


def write_ca_certs(certificates: Sequence[bytes]) -> tuple[str, bytes]:
    """(Content-Type, body): a lone certificate raw, several as certs-only in the given order."""
    if len(certificates) == 1:
        return ONE_CERTIFICATE, certificates[0]
    return SEVERAL_CERTIFICATES, signed_data.write_certs_only(certificates)


def read_ca_certs(body: bytes) -> tuple[bytes, ...]:
    """The certificates of an answer, whatever its Content-Type said."""
    try:
        return cms.read_der_or_ber(body, signed_data.read_certs_only)
    except ScepError:
        return (read_certificate(Der(body).element(SEQUENCE)).der,)
