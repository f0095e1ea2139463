"""Checks of what a certificate tells relying parties beside names, keys and usages. Pure.

These are the CA's certificate and OCSP responders (RFC 5280 s4.2.2.1), policies (s4.2.1.4) and the
TLS feature "must staple" (RFC 7633). A validator's key can be stolen, so each is signed in one form
only. URLs give nothing away: what is fetched from them is signed by the CA. Stapling only restricts
the device. A policy may grant something, so the issuer's configuration lists those it signs.
"""

import re
from collections.abc import Callable
from typing import Final

from shared.log.events.enrollment import TemplateExtension
from shared.scep.asn1 import IA5_STRING, OID, SEQUENCE, Der, dotted, integer, tlv
from shared.scep.errors import ScepError

AUTHORITY_INFORMATION: Final = "1.3.6.1.5.5.7.1.1"
CERTIFICATE_POLICIES: Final = "2.5.29.32"
TLS_FEATURE: Final = "1.3.6.1.5.5.7.1.24"
_METHODS: Final = frozenset({"1.3.6.1.5.5.7.48.1", "1.3.6.1.5.5.7.48.2"})  # OCSP, caIssuers
_CPS: Final = "1.3.6.1.5.5.7.2.1"
_URI: Final = 0x86
_HTTP: Final = re.compile(rb"http://[!-~]+")
_HTTPS: Final = re.compile(rb"https?://[!-~]+")
_MUST_STAPLE: Final = tlv(SEQUENCE, integer(5))  # status_request


def bad_information(extension: TemplateExtension, policies: frozenset[str]) -> str:
    """Return what is wrong with an extension of these kinds, "" for others and if nothing is.

    `policies` are the dotted OIDs that the issuer signs. Raises `ScepError` if it does not parse.
    """
    check = _CHECKS.get(extension.oid)
    if check is None:
        return ""
    if extension.critical:
        return "the extension must not be critical"
    return check(extension.value, policies)


def _bad_authority_information(value: bytes, _: frozenset[str]) -> str:
    descriptions = _sequence(Der(value))
    while descriptions.more():
        description = descriptions.enter(SEQUENCE)
        method, location = dotted(description.value(OID)), description.value(_URI)
        description.finish()
        if method not in _METHODS:
            return "authority information access other than OCSP and caIssuers is not permitted"
        if not _HTTP.fullmatch(location):
            return "authority information access must be an http URL"
    return ""


def _bad_policies(value: bytes, policies: frozenset[str]) -> str:
    information, found = _sequence(Der(value)), set[str]()
    while information.more():
        policy = information.enter(SEQUENCE)
        oid = dotted(policy.value(OID))
        if oid in found:
            return "duplicate certificate policy"
        if oid not in policies:
            return "certificate policy not permitted by this issuer"
        found.add(oid)
        if policy.more() and not _is_practice_statement(policy):
            return "a certificate policy may only have the URL of a practice statement"
    return ""


def _is_practice_statement(policy: Der) -> bool:
    """Return whether the qualifiers are one CPS URL; a notice would be text for users."""
    qualifiers = policy.enter(SEQUENCE)
    policy.finish()
    qualifier = qualifiers.enter(SEQUENCE)
    qualifiers.finish()
    kind, (tag, url) = dotted(qualifier.value(OID)), qualifier.any()
    qualifier.finish()
    return kind == _CPS and tag == IA5_STRING and _HTTPS.fullmatch(url) is not None


def _bad_feature(value: bytes, _: frozenset[str]) -> str:
    return "" if value == _MUST_STAPLE else "the only TLS feature permitted is status_request"


def _sequence(outer: Der) -> Der:
    """Enter a SEQUENCE that is not empty and has nothing after it."""
    inner = outer.enter(SEQUENCE)
    outer.finish()
    if not inner.more():
        raise ScepError("empty sequence")
    return inner


_CHECKS: Final[dict[str, Callable[[bytes, frozenset[str]], str]]] = {
    AUTHORITY_INFORMATION: _bad_authority_information,
    CERTIFICATE_POLICIES: _bad_policies,
    TLS_FEATURE: _bad_feature,
}
