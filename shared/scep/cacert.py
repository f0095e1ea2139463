"""Answers to GetCACert and GetNextCACert (RFC 8894 s4.2, s4.7)."""

from collections.abc import Sequence
from typing import Final

from shared.scep import cms, signed_data
from shared.scep.algorithms import SHA256
from shared.scep.asn1 import SEQUENCE, Der
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

ONE_CERTIFICATE: Final = "application/x-x509-ca-cert"
SEVERAL_CERTIFICATES: Final = "application/x-x509-ca-ra-cert"
NEXT_CERTIFICATES: Final = "application/x-x509-next-ca-cert"


def write_ca_certs(certificates: Sequence[bytes]) -> tuple[str, bytes]:
    """Return (Content-Type, body): one certificate raw, several as certs-only in this order."""
    if len(certificates) == 1:
        return ONE_CERTIFICATE, certificates[0]
    return SEVERAL_CERTIFICATES, signed_data.write_certs_only(certificates)


def read_ca_certs(body: bytes) -> tuple[bytes, ...]:
    """Return the certificates in a GetCACert answer, regardless of its Content-Type."""
    try:
        return cms.read_der_or_ber(body, signed_data.read_certs_only)
    except ScepError:
        return (read_certificate(Der(body).element(SEQUENCE)).der,)


def write_next_ca_certs(
    certificates: Sequence[bytes], signer: signed_data.Signer, beside: Sequence[bytes]
) -> bytes:
    """Sign the next CA's certificates; `beside` are sent along with the signer's certificate."""
    content = signed_data.write_certs_only(certificates)
    others = [der for der in beside if der != signer.certificate.der]
    return signed_data.write_signed_data(content, (), SHA256, signer, others)


def read_next_ca_certs(body: bytes, *signers: bytes) -> tuple[bytes, ...]:
    """Verify a GetNextCACert answer and return its certificates (s4.7.1).

    It must be signed by the key of one of `signers` (DER): the current CA and any RA certificates.
    """
    signed = cms.read_der_or_ber(body, lambda der: signed_data.read_signed_data(der, signers))
    signed_data.verify(signed)
    if signed.signer.spki not in {read_certificate(der).spki for der in signers}:
        raise ScepError("GetNextCACert response is not signed by the CA or its RA")
    return cms.read_der_or_ber(signed.content, signed_data.read_certs_only)
