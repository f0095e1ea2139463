"""Issuer ceilings, checked before the key signs, whatever the verdict says. Pure."""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from services.issuer.crl_points import CRL_POINTS, bad_points
from services.issuer.information import (
    AUTHORITY_INFORMATION,
    CERTIFICATE_POLICIES,
    TLS_FEATURE,
    bad_information,
)
from shared.ca.partitions import NO_PARTITIONS, Partitioning
from shared.ca.validity import ca_ended
from shared.log.events.enrollment import CertificateTemplate, TemplateExtension
from shared.scep.asn1 import BIT_STRING, OID, SEQUENCE, Der, dotted
from shared.scep.errors import ScepError
from shared.x509.key_ids import spki_sha256
from shared.x509.name_rules import bad_general_names, bad_name
from shared.x509.sid import SID, read_sid
from shared.x509.weak_keys import weak_rsa

_KEY_USAGE: Final = "2.5.29.15"
_SUBJECT_ALT_NAME: Final = "2.5.29.17"
_EXTENDED_KEY_USAGE: Final = "2.5.29.37"
# Key usages, extended key usages, key identifiers, SANs, CRL URLs, and what `information` checks.
# Nothing else is ever signed, such as BasicConstraints, except a SID where the issuer allows it.
_ALLOWED: Final = frozenset(
    {
        _KEY_USAGE,
        _EXTENDED_KEY_USAGE,
        "2.5.29.14",
        "2.5.29.35",
        _SUBJECT_ALT_NAME,
        CRL_POINTS,
        AUTHORITY_INFORMATION,
        CERTIFICATE_POLICIES,
        TLS_FEATURE,
    }
)
_CA_USAGES: Final = 0x04 | 0x02  # keyCertSign and cRLSign: bits 5 and 6 of the first octet
_CLOCK_SLACK: Final = 300  # seconds by which the clocks of the log's servers may differ
_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The most that one issuer signs; durations in seconds, EKUs and policies as dotted OIDs.

    `ca_not_before` and `ca_not_after` are in Unix seconds. With partitions, a certificate may name
    only the one that its key selects.
    """

    ca_spki_sha256: str
    ca_not_before: int
    ca_not_after: int
    max_ttl: int
    max_backdate: int
    extended_key_usages: frozenset[str]
    certificate_policies: frozenset[str] = frozenset()
    partitioning: Partitioning = NO_PARTITIONS
    allow_sid: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """When the log stored the request and the verdict (Unix seconds); no process's own clock."""

    requested: int
    approved: int


def beyond_ceilings(template: CertificateTemplate, ceilings: Ceilings) -> str:
    """Return how the template exceeds the ceilings, "" if it does not."""
    validity = template.not_after - template.not_before
    rules = (
        (template.ca_spki_sha256 == ceilings.ca_spki_sha256, "the verdict is for another CA key"),
        (template.not_after <= ceilings.ca_not_after, "the certificate would outlive its CA"),
        (
            template.not_before >= ceilings.ca_not_before,
            "the certificate would become valid before its CA",
        ),
        (validity > 0, "the certificate would expire before it becomes valid"),
        (
            validity <= ceilings.max_ttl + ceilings.max_backdate,
            "the validity is longer than this issuer allows",
        ),
    )
    broken = next((said for holds, said in rules if not holds), "")
    if broken:
        return broken
    try:
        return (
            _bad_key(template.spki)
            or _bad_extensions(template.extensions, ceilings)
            or _bad_crl_points(template, ceilings)
            or _bad_names(template)
        )
    except ScepError:
        return "the template does not parse"


def ended(ceilings: Ceilings, at: int) -> str:
    """Return a sentence if the CA has ended at this time (Unix seconds), else ""."""
    return ca_ended(ceilings.ca_not_after, at)


def out_of_time(template: CertificateTemplate, ceilings: Ceilings, times: Times) -> str:
    """Return what is wrong with the validity, by the log's times; "" if nothing is."""
    if template.not_before < times.requested - ceilings.max_backdate - _CLOCK_SLACK:
        return "the certificate would begin longer before its request than this issuer allows"
    if template.not_before > times.approved + _CLOCK_SLACK:
        return "the certificate would begin in the future"
    if template.not_after > times.approved + ceilings.max_ttl + _CLOCK_SLACK:
        return "the validity is longer than this issuer allows"
    if template.not_after <= times.approved:
        return "the certificate would have expired already"
    return ""


def _bad_names(template: CertificateTemplate) -> str:
    """Check the names again: the issuer vouches for what a certificate says of a device."""
    sans = (e.value for e in template.extensions if e.oid == _SUBJECT_ALT_NAME)
    found = (bad_name(template.subject), *map(bad_general_names, sans))
    return next(filter(None, found), "")


def _bad_key(spki: bytes) -> str:
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return "the public key does not parse"
    if isinstance(key, rsa.RSAPublicKey) and _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
        numbers = key.public_numbers()
        return weak_rsa(numbers.n, numbers.e, legacy=True)  # the profile decides on small exponents
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return ""
    return "the public key is too weak or of an unsupported kind"


def _bad_extensions(extensions: tuple[TemplateExtension, ...], ceilings: Ceilings) -> str:
    oids = [extension.oid for extension in extensions]
    if len(set(oids)) != len(oids):
        return "duplicate extension"
    if not (_ALLOWED | {SID} if ceilings.allow_sid else _ALLOWED).issuperset(oids):
        return "extension not permitted"
    if not {_KEY_USAGE, _EXTENDED_KEY_USAGE} <= set(oids):
        return "key usages are missing"
    return next(filter(None, (_bad_extension(each, ceilings) for each in extensions)), "")


def _bad_extension(extension: TemplateExtension, ceilings: Ceilings) -> str:
    if extension.oid == _KEY_USAGE and _is_ca_usage(extension.value):
        return "CA key usage not permitted"
    if extension.oid == _EXTENDED_KEY_USAGE and not (
        ceilings.extended_key_usages.issuperset(_oids(extension.value))
    ):
        return "extended key usage not permitted by this issuer"
    if extension.oid == SID and (extension.critical or not read_sid(extension.value)):
        return "the extension with the SID is not the SID of one account"
    return bad_information(extension, ceilings.certificate_policies)


def _bad_crl_points(template: CertificateTemplate, ceilings: Ceilings) -> str:
    values = (each.value for each in template.extensions if each.oid == CRL_POINTS)
    key, pin = spki_sha256(template.spki), ceilings.ca_spki_sha256
    found = (bad_points(value, ceilings.partitioning, pin, key) for value in values)
    return next(filter(None, found), "")


def _is_ca_usage(value: bytes) -> bool:
    outer = Der(value)
    bits = outer.value(BIT_STRING)
    outer.finish()
    return len(bits) < 2 or bool(bits[1] & _CA_USAGES)  # noqa: PLR2004 - count octet and usages


def _oids(value: bytes) -> set[str]:
    outer, found = Der(value), set()
    sequence = outer.enter(SEQUENCE)
    outer.finish()
    while sequence.more():
        found.add(dotted(sequence.value(OID)))
    if not found:
        raise ScepError("empty extended key usage")
    return found


def sid_of(template: CertificateTemplate) -> str:
    """Return the SID in a template, "" if there is none."""
    values = (e.value for e in template.extensions if e.oid == SID)
    return next(map(read_sid, values), "")


def names_sha256(template: CertificateTemplate) -> str:
    """Return the digest that names subject and SANs in events, for renewals to compare."""
    sans = (e.value for e in template.extensions if e.oid == _SUBJECT_ALT_NAME)
    return hashlib.sha256(template.subject + b"".join(sans)).hexdigest()
