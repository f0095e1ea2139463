"""Whether a certificate that a CA returned is the one that was approved. Pure.

A CA may reorder names, leave usages away and shorten the validity; it may add none of them.
"""

from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from services.issuer.ceilings import Ceilings
from services.issuer.certificate import certificate, draft
from shared.log.events.enrollment import CertificateTemplate
from shared.scep.algorithms import SHA256
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import public_key, scheme_of, signature_identifier
from shared.x509.loading import loading
from shared.x509.names import name_text
from shared.x509.signatures import is_signed_by

_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def misissued(template: CertificateTemplate, ceilings: Ceilings, ca: bytes, der: bytes) -> str:
    """Return how a certificate (DER) differs from what the CA (DER) was to issue, "" if it fits."""
    try:
        issuer = read_certificate(ca)
        parsed = read_certificate(der)
        with loading():
            found, approved = _loaded(der), _loaded(_drafted(template, issuer))
            return _difference(parsed, template, ceilings, issuer) or _extensions(found, approved)
    except (ValueError, ScepError) as error:
        return f"the certificate does not load: {str(error)[:200]}"


def valid_until(der: bytes) -> int:
    """Return the end of a certificate (DER) in Unix seconds."""
    return int(x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp())


def _loaded(der: bytes) -> x509.Certificate:
    loaded = x509.load_der_x509_certificate(der)
    loaded.subject  # noqa: B018 - parsed when it is read
    loaded.extensions  # noqa: B018
    return loaded


def _drafted(template: CertificateTemplate, issuer: Certificate) -> bytes:
    algorithm = signature_identifier(scheme_of(issuer.spki), SHA256)
    made = draft(template, issuer.subject, algorithm, b"", "")
    return certificate(made.tbs, algorithm, b"")


def _difference(
    parsed: Certificate, template: CertificateTemplate, ceilings: Ceilings, issuer: Certificate
) -> str:
    loaded = x509.load_der_x509_certificate(parsed.der)
    begins = int(loaded.not_valid_before_utc.timestamp())
    ends = int(loaded.not_valid_after_utc.timestamp())
    rules = (
        (parsed.spki == template.spki, "the certificate is for another key"),
        (
            name_text(parsed.subject) == name_text(template.subject),
            "the certificate has another subject",
        ),
        (
            parsed.issuer == issuer.subject and is_signed_by(parsed.der, public_key(issuer.spki)),
            "the certificate is not signed by the CA that the profile pins",
        ),
        (loaded.serial_number > 0, "the serial number is not positive"),
        (
            begins >= template.not_before - ceilings.max_backdate,
            "the certificate begins earlier than this issuer allows",
        ),
        (ends <= template.not_after, "the certificate ends later than was approved"),
        (begins < ends, "the certificate ends before it begins"),
    )
    return next((said for holds, said in rules if not holds), "")


def _extensions(found: x509.Certificate, approved: x509.Certificate) -> str:
    if _is_ca(found):
        return "the certificate is one of a CA"
    if _names(found) != _names(approved):
        return "the certificate has other subjectAltNames than were approved"
    if not _usages(found) or not _usages(found) <= _usages(approved):
        return "the certificate has a key usage that was not approved"
    purposes = _purposes(found)
    if not purposes or not purposes <= _purposes(approved):
        return "the certificate has an extended key usage that was not approved"
    return ""


def _is_ca(loaded: x509.Certificate) -> bool:
    try:
        return loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _names(loaded: x509.Certificate) -> frozenset[x509.GeneralName]:
    try:
        found = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(found.value)


def _usages(loaded: x509.Certificate) -> frozenset[str]:
    try:
        found = loaded.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset()
    named = {name for name in _USAGES if getattr(found, name)}
    if found.key_agreement:
        named |= {n for n in ("encipher_only", "decipher_only") if getattr(found, n)}
    return frozenset(named)


def _purposes(loaded: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    try:
        found = loaded.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE)
    except x509.ExtensionNotFound:
        return frozenset()
    assert isinstance(found.value, x509.ExtendedKeyUsage)
    return frozenset(found.value)
