"""The subject and subjectAltName of a certificate, wherever they come from. Pure."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from shared.scep.asn1 import object_identifier
from shared.scep.certificate import read_certificate, read_extension
from shared.x509.csr import SUBJECT_ALT_NAME, CertificationRequest
from shared.x509.names import GeneralName, read_general_names

_SAN: Final = object_identifier(SUBJECT_ALT_NAME)


@dataclass(frozen=True)
class CertificateNames:
    """A subject and the value of a subjectAltName (DER); None if there is none."""

    subject: bytes
    san_value: bytes | None = None

    @classmethod
    def of_csr(cls, csr: CertificationRequest) -> Self:
        """Return the names that a CSR asks for."""
        return cls(csr.subject, csr.san_value)

    @classmethod
    def of_certificate(cls, der: bytes) -> Self:
        """Return a certificate's names; `ScepError` if it is malformed."""
        return cls(read_certificate(der).subject, read_extension(der, _SAN))

    @cached_property
    def sans(self) -> tuple[GeneralName, ...]:
        """The entries of the subjectAltName, in order."""
        return read_general_names(self.san_value) if self.san_value is not None else ()

    @property
    def names(self) -> bytes:
        """Both (DER), as records identify them; an empty subjectAltName is omitted."""
        return self.subject + (self.san_value or b"" if self.sans else b"")
