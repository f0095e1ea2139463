"""Checks that a certificate which a CA returned is the one that was approved. Pure.

A CA may reorder RDNs and subjectAltNames, drop usages, shorten the validity, begin it up to
`max_backdate` earlier, and add where its own certificate, CRL, OCSP and policies are found. It may
add nothing that gives the device more.
"""

from collections import Counter
from typing import Final

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from services.issuer.ceilings import Ceilings
from services.issuer.certificate import certificate, draft
from services.issuer.lints import first_error
from services.issuer.readable import in_utf8
from shared.log.events.enrollment import CertificateTemplate
from shared.scep.algorithms import SHA256
from shared.scep.asn1 import OID, SEQUENCE, Der, dotted
from shared.scep.certificate import Certificate, read_certificate
from shared.scep.errors import ScepError
from shared.scep.schemes import public_key, scheme_of, signature_identifier
from shared.x509.loading import loading
from shared.x509.sid import SID
from shared.x509.signatures import is_signed_by

_MAX_BYTES: Final = 64 * 1024
_SERIAL_OCTETS: Final = 20  # RFC 5280 4.1.2.2
_BEGINS_WITHIN: Final = 3600  # seconds after the approval
_APPLICATION_POLICIES: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.21.10")
# What a CA may add: where things are found, how keys are identified, which policy applies.
_ADDED: Final = frozenset(
    {
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.FRESHEST_CRL,
        ExtensionOID.MS_CERTIFICATE_TEMPLATE,
        ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.TLS_FEATURE,
        _APPLICATION_POLICIES,
    }
)
_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def misissued(
    template: CertificateTemplate, ceilings: Ceilings, ca: bytes, der: bytes, approved_at: int
) -> str:
    """Return how a certificate (DER) differs from what the CA (DER) was to issue, "" if it fits.

    `approved_at` is when the log stored the verdict (Unix seconds).
    """
    if len(der) > _MAX_BYTES:
        return f"the certificate is longer than {_MAX_BYTES} bytes"
    try:
        issuer = read_certificate(ca)
        parsed = read_certificate(der)
        with loading():
            found, approved = _loaded(der), load_draft(template, ca)
            return (
                _origin(parsed, found, issuer)
                or _subject(parsed, template, found, approved)
                or _validity(found, template, ceilings, approved_at)
                or _extensions(found, approved)
                or _sid(found, approved)
                or _application_policies(found, approved)
                or _linted(der)
            )
    except (ValueError, TypeError, ScepError) as error:
        return f"the certificate does not load: {str(error)[:200]}"


def is_from(ca: bytes, der: bytes) -> bool:
    """Return whether a CA (DER) signed a certificate (DER)."""
    try:
        read_certificate(der)
        return is_signed_by(der, public_key(read_certificate(ca).spki))
    except (ValueError, ScepError):
        return False


def undraftable(template: CertificateTemplate, ca: bytes) -> str:
    """Return why no certificate of this template would load, "" if one would."""
    try:
        with loading():
            load_draft(template, ca)
    except (ValueError, ScepError) as error:
        return f"the certificate would not load: {str(error)[:200]}"
    return ""


def load_draft(template: CertificateTemplate, ca: bytes) -> x509.Certificate:
    """Return the approved certificate without a signature, as a CA (DER) would issue it.

    Raises ValueError or `ScepError` if it would not load.
    """
    return _loaded(_drafted(template, read_certificate(ca)))


def validity(der: bytes) -> tuple[int, int]:
    """Return when a certificate (DER) begins and ends, in Unix seconds."""
    loaded = x509.load_der_x509_certificate(der)
    return (
        int(loaded.not_valid_before_utc.timestamp()),
        int(loaded.not_valid_after_utc.timestamp()),
    )


def _loaded(der: bytes) -> x509.Certificate:
    loaded = x509.load_der_x509_certificate(der)
    loaded.subject  # noqa: B018 - parsed when it is read
    loaded.extensions  # noqa: B018
    return loaded


def _drafted(template: CertificateTemplate, issuer: Certificate) -> bytes:
    """Return the approved certificate, loose strings as UTF8Strings, which every parser reads."""
    plain = msgspec.structs.replace(template, subject=in_utf8(template.subject))
    algorithm = signature_identifier(scheme_of(issuer.spki), SHA256)
    made = draft(plain, issuer.subject, algorithm, b"", "")
    return certificate(made.tbs, algorithm, b"")


def _origin(parsed: Certificate, found: x509.Certificate, issuer: Certificate) -> str:
    signed = is_signed_by(parsed.der, public_key(issuer.spki))
    if parsed.issuer != issuer.subject or not signed:
        return "the certificate is not signed by the CA that the profile pins"
    if found.serial_number <= 0:
        return "the serial number is not positive"
    if len(parsed.serial) > _SERIAL_OCTETS:
        return f"the serial number is longer than {_SERIAL_OCTETS} octets"
    return ""


def _subject(
    parsed: Certificate,
    template: CertificateTemplate,
    found: x509.Certificate,
    approved: x509.Certificate,
) -> str:
    if parsed.spki != template.spki:
        return "the certificate is for another key"
    if Counter(found.subject.rdns) != Counter(approved.subject.rdns):
        return "the certificate has another subject"
    if _names(found) != _names(approved):
        return "the certificate has other subjectAltNames than were approved"
    return ""


def _validity(
    found: x509.Certificate, template: CertificateTemplate, ceilings: Ceilings, approved_at: int
) -> str:
    begins = int(found.not_valid_before_utc.timestamp())
    ends = int(found.not_valid_after_utc.timestamp())
    rules = (
        (
            begins >= template.not_before - ceilings.max_backdate,
            "the certificate becomes valid earlier than this issuer allows",
        ),
        (begins <= approved_at + _BEGINS_WITHIN, "the certificate becomes valid too late"),
        (ends <= template.not_after, "the certificate expires later than was approved"),
        (ends > approved_at, "the certificate has already expired"),
        (begins < ends, "the certificate expires before it becomes valid"),
    )
    return next((said for holds, said in rules if not holds), "")


def _extensions(found: x509.Certificate, approved: x509.Certificate) -> str:
    expected = {each.oid for each in approved.extensions} | _ADDED
    if odd := [each.oid for each in found.extensions if each.oid not in expected]:
        return f"the certificate has an extension that was not approved: {odd[0].dotted_string}"
    if _is_ca(found):
        return "the certificate is a CA certificate"
    usages, purposes = _usages(found), _purposes(found)
    if not usages or not purposes:
        return "the certificate has no key usage, or no extended key usage"
    if not usages <= _usages(approved):
        return "the certificate has a key usage that was not approved"
    if not purposes <= _purposes(approved):
        return "the certificate has an extended key usage that was not approved"
    return ""


def _sid(found: x509.Certificate, approved: x509.Certificate) -> str:
    """Require the SID that was approved; without it the certificate would not log anybody on."""
    if _sids(found) != _sids(approved):
        return "the certificate does not have the SID that was approved"
    return ""


def _sids(loaded: x509.Certificate) -> list[tuple[bool, bytes]]:
    """Return (critical, value) of the extension for a SID; it is there once at most."""
    found = (each for each in loaded.extensions if each.oid.dotted_string == SID)
    return [(each.critical, each.value.public_bytes()) for each in found]


def _application_policies(found: x509.Certificate, approved: x509.Certificate) -> str:
    """Check Microsoft's own form of the extended key usages, which AD CS adds by itself."""
    for each in found.extensions:
        if each.oid == _APPLICATION_POLICIES:
            assert isinstance(each.value, x509.UnrecognizedExtension)
            purposes = {oid.dotted_string for oid in _purposes(approved)}
            if not _policies(each.value.value) <= purposes:
                return "the certificate has an application policy that was not approved"
    return ""


def _linted(der: bytes) -> str:
    problem = first_error(der)
    return f"the certificate is invalid: {problem}" if problem else ""


def _policies(value: bytes) -> set[str]:
    """Return the policy identifiers of a CertificatePolicies value (RFC 5280 s4.2.1.4)."""
    outer = Der(value)
    policies = outer.enter(SEQUENCE)
    outer.finish()
    found: set[str] = set()
    while policies.more():
        found.add(dotted(policies.enter(SEQUENCE).value(OID)))
    return found


def _is_ca(loaded: x509.Certificate) -> bool:
    try:
        return loaded.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _names(loaded: x509.Certificate) -> frozenset[x509.GeneralName]:
    """Return the subjectAltNames; host names are lower-cased, because they ignore case."""
    try:
        found = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(
        x509.DNSName(each.value.lower()) if isinstance(each, x509.DNSName) else each
        for each in found.value
    )


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
