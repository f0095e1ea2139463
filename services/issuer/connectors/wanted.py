"""What an approved template asks for, in the terms that CAs' APIs use. Pure."""

import base64
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from services.issuer.received import load_draft
from shared.log.events.enrollment import CertificateTemplate

# The names of RFC 5280 for the attributes of `cryptography`.
KEY_USAGES: Final = {
    "digital_signature": "digitalSignature",
    "content_commitment": "nonRepudiation",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": "keyCertSign",
    "crl_sign": "cRLSign",
}
_LINE: Final = 64


@dataclass(frozen=True, slots=True)
class Wanted:
    """The usages and names of a template; key usages by RFC 5280's names, EKUs as dotted OIDs."""

    key_usages: tuple[str, ...]
    extended_key_usages: tuple[str, ...]
    names: tuple[x509.GeneralName, ...]

    @property
    def dns_names(self) -> tuple[str, ...]:
        """The host names among the subjectAltNames."""
        return tuple(name.value for name in self.names if isinstance(name, x509.DNSName))


def wanted(template: CertificateTemplate, ca: bytes) -> Wanted:
    """Return what a template asks for; `ca` is the issuing CA's certificate (DER).

    Raises ValueError or `ScepError` if no certificate of this template would load.
    """
    key_usages: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    names: tuple[x509.GeneralName, ...] = ()
    for extension in load_draft(template, ca).extensions:
        match extension.value:
            case x509.KeyUsage() as usage:
                key_usages = tuple(n for field, n in KEY_USAGES.items() if getattr(usage, field))
            case x509.ExtendedKeyUsage() as usages:
                purposes = tuple(each.dotted_string for each in usages)
            case x509.SubjectAlternativeName() as sans:
                names = tuple(sans)
    return Wanted(key_usages, purposes, names)


def pem(der: bytes, label: str) -> str:
    """Return DER as PEM with a label, "CERTIFICATE REQUEST" say."""
    text = base64.b64encode(der).decode("ascii")
    lines = (text[i : i + _LINE] for i in range(0, len(text), _LINE))
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))
