"""Lints a certificate before it is recorded: what RFC 5280 asks of an end entity's. Pure.

A finding is an error if programs reject or misread the certificate, else a warning. It works on the
bytes, since parsers accept much that others do not, and it costs little enough for every draft.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from shared.scep.asn1 import (
    BIT_STRING,
    CONSTRUCTED_0,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Der,
    dotted,
    integer,
    object_identifier,
    tlv,
)
from shared.scep.errors import ScepError

_VERSION_3: Final = tlv(CONSTRUCTED_0, integer(2))
_EMPTY: Final = tlv(SEQUENCE)
_BOOLEAN: Final = 0x01
_EXTENSIONS: Final = CONSTRUCTED_0 | 3
_SERIAL_OCTETS: Final = 20
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_DIGITS: Final = {_UTC_TIME: 12, _GENERALIZED_TIME: 14}
_PSS: Final = object_identifier("1.2.840.113549.1.1.10")
_BROKEN: Final = frozenset(map(object_identifier, ("1.2.840.113549.1.1.2", "1.2.840.113549.1.1.4")))
_SHA1: Final = frozenset(map(object_identifier, ("1.2.840.113549.1.1.5", "1.2.840.10045.4.1")))
_EC: Final = object_identifier("1.2.840.10045.2.1")

_KEY_USAGE: Final = object_identifier("2.5.29.15")
_SAN: Final = object_identifier("2.5.29.17")
_BASIC_CONSTRAINTS: Final = object_identifier("2.5.29.19")
_POLICIES: Final = object_identifier("2.5.29.32")
_EXTENDED_KEY_USAGE: Final = object_identifier("2.5.29.37")
_SUBJECT_KEY_ID: Final = object_identifier("2.5.29.14")
_AUTHORITY_KEY_ID: Final = object_identifier("2.5.29.35")
_CRL_POINTS: Final = object_identifier("2.5.29.31")
_AUTHORITY_INFORMATION: Final = object_identifier("1.3.6.1.5.5.7.1.1")
_TLS_FEATURE: Final = object_identifier("1.3.6.1.5.5.7.1.24")
_APPLICATION_POLICIES: Final = object_identifier("1.3.6.1.4.1.311.21.10")
# Programs know these, and so may find them critical; the last is Windows's.
_MAY_BE_CRITICAL: Final = frozenset(
    {
        _KEY_USAGE,
        _SAN,
        _BASIC_CONSTRAINTS,
        _POLICIES,
        _EXTENDED_KEY_USAGE,
        _CRL_POINTS,
        _APPLICATION_POLICIES,
    }
)
_NOT_EMPTY: Final = {
    _SAN: "subjectAltName",
    _POLICIES: "certificatePolicies",
    _EXTENDED_KEY_USAGE: "extendedKeyUsage",
    _CRL_POINTS: "cRLDistributionPoints",
    _AUTHORITY_INFORMATION: "authorityInfoAccess",
    _TLS_FEATURE: "TLS features",
}
_SIGNATURE, _NON_REPUDIATION, _KEY_ENCIPHERMENT = 0x80, 0x40, 0x20
_ENCIPHERMENTS, _AGREEMENT, _CERT_SIGN = 0x30, 0x08, 0x04
# The key usages of which each purpose needs one (RFC 5280 s4.2.1.12).
_CONSISTENT: Final = {
    object_identifier(f"1.3.6.1.5.5.7.3.{number}"): usages
    for number, usages in (
        (1, _SIGNATURE | _KEY_ENCIPHERMENT | _AGREEMENT),
        (2, _SIGNATURE | _AGREEMENT),
        (3, _SIGNATURE),
        (4, _SIGNATURE | _NON_REPUDIATION | _KEY_ENCIPHERMENT | _AGREEMENT),
        (8, _SIGNATURE | _NON_REPUDIATION),
        (9, _SIGNATURE | _NON_REPUDIATION),
    )
}
_ANY_USAGE: Final = 0xFF


class Finding(NamedTuple):
    """What is wrong with a certificate; `is_error` if programs reject or misread it."""

    is_error: bool
    text: str


@dataclass(slots=True)
class _Findings:
    found: list[Finding] = field(default_factory=list)

    def error(self, is_wrong: bool, text: str) -> None:  # noqa: FBT001 - reads as a rule
        if is_wrong:
            self.found.append(Finding(True, text))

    def warning(self, is_wrong: bool, text: str) -> None:  # noqa: FBT001
        if is_wrong:
            self.found.append(Finding(False, text))


class _Extension(NamedTuple):
    critical: bool
    value: bytes


def lint(der: bytes) -> tuple[Finding, ...]:
    """Return what is wrong with a certificate (DER), signed or not; the signature is not verified.

    What does not parse is one error.
    """
    findings = _Findings()
    try:
        _certificate(der, findings)
    except ScepError as error:
        findings.error(True, f"the certificate does not parse: {error.detail}")
    return tuple(findings.found)


def first_error(der: bytes) -> str:
    """Return the first error of a certificate (DER), "" if it has none."""
    return next((each.text for each in lint(der) if each.is_error), "")


def _certificate(der: bytes, findings: _Findings) -> None:
    outer = Der(der)
    whole = outer.enter(SEQUENCE)
    outer.finish()
    tbs, algorithm = whole.enter(SEQUENCE), whole.element(SEQUENCE)
    whole.value(BIT_STRING)
    whole.finish()
    if not tbs.next_is(CONSTRUCTED_0) or tbs.element() != _VERSION_3:
        raise ScepError("the version is not 3 (RFC 5280 4.1.2.1)")
    _serial(tbs.value(INTEGER), findings)
    findings.error(
        tbs.element(SEQUENCE) != algorithm,
        "the signature algorithms inside and outside differ (RFC 5280 4.1.1.2)",
    )
    findings.found += _algorithm(algorithm)
    findings.error(tbs.element(SEQUENCE) == _EMPTY, "the issuer is empty (RFC 5280 4.1.2.4)")
    _validity(tbs.enter(SEQUENCE), findings)
    subject, spki = tbs.element(SEQUENCE), tbs.element(SEQUENCE)
    has_ids = [tbs.skip_if(tag) for tag in (0x81, 0x82)]
    findings.warning(any(has_ids), "unique identifiers (RFC 5280 4.1.2.8)")
    extensions = _extensions(tbs.enter(_EXTENSIONS), findings)
    tbs.finish()
    _names(subject == _EMPTY, extensions.get(_SAN), findings)
    _usages(spki, extensions, findings)
    _constraints(extensions, findings)
    _key_ids(extensions, findings)


def _serial(serial: bytes, findings: _Findings) -> None:
    is_positive = serial and serial[0] < 0x80 and any(serial)  # noqa: PLR2004 - the sign bit
    findings.error(not is_positive, "the serial number is not positive (RFC 5280 4.1.2.2)")
    findings.error(
        len(serial) > _SERIAL_OCTETS,
        "the serial number is longer than 20 octets (RFC 5280 4.1.2.2)",
    )
    # 9 bits alike, of which the first is the sign, are one octet too many (X.690 8.3.2).
    is_padded = len(serial) > 1 and serial[0] == 0 and serial[1] < 0x80  # noqa: PLR2004
    findings.error(is_padded, "the serial number is not in DER")


@lru_cache(maxsize=16)
def _algorithm(algorithm: bytes) -> tuple[Finding, ...]:
    findings, inner = _Findings(), Der(algorithm).enter(SEQUENCE)
    oid = inner.element(OID)
    findings.error(oid in _BROKEN, "the signature uses MD2 or MD5")
    # The hash of RSASSA-PSS is SHA-1 unless [0] says otherwise (RFC 4055 s3.1).
    is_default = oid == _PSS and not (
        inner.next_is(SEQUENCE) and inner.enter(SEQUENCE).next_is(CONSTRUCTED_0)
    )
    findings.warning(oid in _SHA1 or is_default, "the signature uses SHA-1")
    return tuple(findings.found)


def _validity(validity: Der, findings: _Findings) -> None:
    begin, end = _time(validity, findings), _time(validity, findings)
    validity.finish()
    findings.error(begin >= end, "the certificate expires before it becomes valid")


def _time(validity: Der, findings: _Findings) -> bytes:
    """Return a time as YYYYMMDDHHMMSS."""
    tag, contents = validity.any()
    digits = contents[:-1]
    if contents[-1:] != b"Z" or not digits.isdigit() or len(digits) != _DIGITS.get(tag):
        raise ScepError("a time is not written as RFC 5280 4.1.2.5 requires")
    if tag == _UTC_TIME:
        return (b"20" if digits < b"50" else b"19") + digits
    is_early = digits < b"2050"
    findings.warning(is_early, "a time before 2050 is not a UTCTime (RFC 5280 4.1.2.5)")
    return digits


def _extensions(der: Der, findings: _Findings) -> dict[bytes, _Extension]:
    found: dict[bytes, _Extension] = {}
    sequence = der.enter(SEQUENCE)
    der.finish()
    findings.error(not sequence.more(), "the extensions are empty (RFC 5280 4.1.2.9)")
    while sequence.more():
        extension = sequence.enter(SEQUENCE)
        oid, critical = extension.element(OID), False
        if extension.next_is(_BOOLEAN):
            critical = extension.value(_BOOLEAN) == b"\xff"
            findings.warning(not critical, "a critical flag is not in DER")
        value = extension.value(OCTET_STRING)
        extension.finish()
        if oid in found:
            findings.error(True, f"duplicate extension {_written(oid)} (RFC 5280 4.2)")
        if critical and oid not in _MAY_BE_CRITICAL:
            findings.error(True, f"extension {_written(oid)} must not be critical")
        if value == _EMPTY and oid in _NOT_EMPTY:
            findings.error(True, f"{_NOT_EMPTY[oid]} is empty")
        found[oid] = _Extension(critical, value)
    return found


def _written(oid: bytes) -> str:
    return dotted(Der(oid).value(OID))


def _names(is_empty: bool, san: _Extension | None, findings: _Findings) -> None:  # noqa: FBT001
    if is_empty:
        findings.error(san is None, "neither subject nor subjectAltName (RFC 5280 4.1.2.6)")
        findings.warning(
            san is not None and not san.critical,
            "the subject is empty and the subjectAltName not critical (RFC 5280 4.1.2.6)",
        )
    else:
        findings.warning(
            san is not None and san.critical,
            "the subjectAltName is critical beside a subject (RFC 5280 4.2.1.6)",
        )


def _usages(spki: bytes, extensions: dict[bytes, _Extension], findings: _Findings) -> None:
    usage, purposes = extensions.get(_KEY_USAGE), extensions.get(_EXTENDED_KEY_USAGE)
    if usage is None:
        return
    findings.warning(not usage.critical, "the key usage is not critical (RFC 5280 4.2.1.3)")
    outer = Der(usage.value)
    bits = outer.value(BIT_STRING)
    outer.finish()
    usages = bits[1] if len(bits) > 1 else 0
    findings.error(not any(bits[1:]), "the key usage is empty (RFC 5280 4.2.1.3)")
    findings.error(bool(usages & _CERT_SIGN), "the key usage has keyCertSign")
    if usages & _ENCIPHERMENTS:
        is_ec = Der(spki).enter(SEQUENCE).enter(SEQUENCE).element(OID) == _EC
        findings.warning(is_ec, "an EC key cannot encipher (RFC 8813 3)")
    needed = _needed(purposes.value) if purposes is not None else 0
    findings.warning(
        bool(needed) and not usages & needed,
        "no extended key usage is consistent with the key usage (RFC 5280 4.2.1.12)",
    )


@lru_cache(maxsize=64)
def _needed(value: bytes) -> int:
    """Return the key usages with which any of the extended key usages is consistent, as bits."""
    purposes, needed = Der(value).enter(SEQUENCE), 0
    while purposes.more():
        needed |= _CONSISTENT.get(purposes.element(OID), _ANY_USAGE)
    return needed


def _constraints(extensions: dict[bytes, _Extension], findings: _Findings) -> None:
    constraints = extensions.get(_BASIC_CONSTRAINTS)
    if constraints is not None:
        inner = Der(constraints.value).enter(SEQUENCE)
        is_ca = inner.next_is(_BOOLEAN) and inner.value(_BOOLEAN) != b"\0"
        findings.error(is_ca, "the certificate is a CA certificate")
        has_length = not is_ca and inner.next_is(INTEGER)
        findings.error(has_length, "a path length, but no CA (RFC 5280 4.2.1.9)")


def _key_ids(extensions: dict[bytes, _Extension], findings: _Findings) -> None:
    authority = extensions.get(_AUTHORITY_KEY_ID)
    findings.warning(
        authority is None or not Der(authority.value).enter(SEQUENCE).next_is(0x80),
        "no authority key identifier (RFC 5280 4.2.1.1)",
    )
    findings.warning(
        _SUBJECT_KEY_ID not in extensions, "no subject key identifier (RFC 5280 4.2.1.2)"
    )
