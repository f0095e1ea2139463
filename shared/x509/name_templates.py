"""Templates of a certificate's names, filled with claims that a verifier proved. Pure.

A template is one attribute of the subject ("CN={device_name}") or one subjectAltName
("uri:urn:device:{device_id}"). A claim's value becomes part of a string, never of a syntax: an
attribute's value is encoded as it is, a URI's is percent-encoded, and where a template adds a
domain to a value, the value must not contain a dot or an @. What does not fit is refused, not
repaired.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from shared.limits import CLAIM_CHARACTERS
from shared.scep.asn1 import (
    CONSTRUCTED_0,
    IA5_STRING,
    PRINTABLE_STRING,
    SEQUENCE,
    SET,
    UTF8_STRING,
    is_printable,
    object_identifier,
    tlv,
)
from shared.text.printable import HIDDEN
from shared.x509.names import SHORT_NAMES, UPN

Claims = Mapping[str, Sequence[str]]

# Every claim that a template may name. Those in `LISTS` may have several values.
LISTS: Final = {"san_dns": "dns", "san_rfc822": "rfc822", "san_upn": "upn"}
CLAIMS: Final = (
    "iss",
    "sub",
    "device_name",
    "device_id",
    "serial_number",
    "user_name",
    "department",
    "sid",
    *LISTS,
)
_TAGS: Final = {"rfc822": 0x81, "dns": 0x82, "uri": 0x86, "upn": CONSTRUCTED_0}
# What would separate parts of different authority, if a template adds text to a value.
_SEPARATORS: Final = {"dns": ".*", "rfc822": "@", "upn": "@", "uri": ""}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_OID: Final = re.compile(r"[0-2](\.[0-9]+)+")
_PARTS: Final = re.compile(r"\{\{|\}\}|\{([a-z0-9_]+)\}|([^{}]+)")
_OIDS: Final = {name: oid for oid, name in SHORT_NAMES.items()}
_PRINTABLE: Final = ("C", "serialNumber")
_IA5: Final = ("DC", "emailAddress")
# Characters (RFC 5280 A.1); a country has exactly two.
_LENGTHS: Final = {
    "CN": 64, "serialNumber": 64, "C": 2, "L": 128, "ST": 128, "O": 64, "OU": 64, "DC": 63,
    "emailAddress": 255,
}  # fmt: skip
_UPN_OID: Final = tlv(0x06, UPN)


class MissingClaimError(Exception):
    """Raised if a template names a claim that was not proved; holds the claim's name."""


class UnfitNameError(Exception):
    """Raised if the name that a template makes would be invalid; says why."""


@dataclass(frozen=True, slots=True)
class Template:
    """What to write, in turn: (text, "") or ("", claim).

    `kind` is the type of an attribute or the kind of a subjectAltName.
    """

    kind: str
    parts: tuple[tuple[str, str], ...]

    @property
    def claims(self) -> tuple[str, ...]:
        """The claims that the template names."""
        return tuple(claim for _, claim in self.parts if claim)

    @property
    def is_claim(self) -> bool:
        """Whether the template is a claim with nothing added."""
        return len(self.parts) == 1 and bool(self.parts[0][1])


def read_subject_template(text: str) -> Template:
    """Read "TYPE=TEMPLATE" for an attribute of the subject; ValueError says what is wrong."""
    kind, _, rest = text.partition("=")
    kind = SHORT_NAMES.get(kind, kind)
    if kind not in _OIDS and not _OID.fullmatch(kind):
        raise ValueError(f'not an attribute and a template, such as "CN={{device_name}}": "{text}"')
    found = _template(kind, rest, text)
    if lists := [claim for claim in found.claims if claim in LISTS]:
        raise ValueError(f'{lists[0]} may have several values, an attribute only one: "{text}"')
    if not found.claims:
        _check_attribute(kind, _filled(found, {}))
    return found


def read_san_template(text: str) -> Template:
    """Read "KIND:TEMPLATE" for a subjectAltName; ValueError says what is wrong."""
    kind, _, rest = text.partition(":")
    if kind not in _TAGS:
        raise ValueError(f'not a kind and a template, such as "dns:{{san_dns}}": "{text}"')
    found = _template(kind, rest, text)
    if kind == "uri" and not _SCHEME.match(found.parts[0][0]):
        raise ValueError(f'a URI must begin with its scheme, such as "urn:": "{text}"')
    for claim in found.claims:
        if claim in LISTS and (LISTS[claim] != kind or not found.is_claim):
            raise ValueError(f'write {claim} as "{LISTS[claim]}:{{{claim}}}", not as "{text}"')
    return found


def write_subject(templates: Iterable[Template], claims: Claims) -> bytes:
    """Return the subject (DER) that the templates make, one attribute each, in their order.

    Raises `MissingClaimError` or `UnfitNameError`.
    """
    rdns = []
    for template in templates:
        value = _filled(template, claims)
        try:
            encoded = _check_attribute(template.kind, value)
        except ValueError as error:
            raise UnfitNameError(str(error)) from None
        oid = object_identifier(_OIDS.get(template.kind, template.kind))
        rdns.append(tlv(SET, tlv(SEQUENCE, oid, encoded)))
    return tlv(SEQUENCE, *rdns)


def write_sans(templates: Iterable[Template], claims: Claims) -> bytes | None:
    """Return the subjectAltName (DER) that the templates make, without duplicates.

    None if there are no names: lists may be empty. Raises `MissingClaimError` or `UnfitNameError`.
    """
    found = {entry: None for each in templates for entry in _entries(each, claims)}
    return tlv(SEQUENCE, *found) if found else None


def _entries(template: Template, claims: Claims) -> Iterator[bytes]:
    first = template.parts[0][1]
    if first in LISTS:
        for value in _values(first, claims):
            yield _general_name(template.kind, value)
        return
    for _, claim in template.parts:
        separator = "" if template.is_claim or not claim else _SEPARATORS[template.kind]
        if any(each in separator for each in "".join(_values(claim, claims) if claim else ())):
            shown = " and ".join(separator)
            raise UnfitNameError(
                f"claim {claim} must not contain {shown} in a {template.kind} name"
            )
    yield _general_name(template.kind, _filled(template, claims))


def _general_name(kind: str, value: str) -> bytes:
    if kind == "upn":
        return tlv(_TAGS[kind], _UPN_OID, tlv(CONSTRUCTED_0, tlv(UTF8_STRING, value.encode())))
    if not value.isascii():
        raise UnfitNameError(f"a {kind} name with characters outside ASCII")
    return tlv(_TAGS[kind], value.encode())


def _filled(template: Template, claims: Claims) -> str:
    """Return the template's text with the claims' values; URIs get them percent-encoded."""
    written = []
    for text, claim in template.parts:
        value = _values(claim, claims)[0] if claim else text
        written.append(quote(value, safe="") if claim and template.kind == "uri" else value)
    return "".join(written)


def _values(claim: str, claims: Claims) -> Sequence[str]:
    found = claims.get(claim)
    if found is None:
        raise MissingClaimError(claim)
    if any(HIDDEN.search(value) for value in found):
        raise UnfitNameError(f"claim {claim} contains a hidden character")
    return found


def _check_attribute(kind: str, value: str) -> bytes:
    """Return an attribute's value (DER) in the string type of its kind; ValueError if unfit."""
    most = _LENGTHS.get(kind, CLAIM_CHARACTERS)
    if len(value) > most or (kind == "C" and len(value) != most):
        raise ValueError(f"{kind} must have {'' if kind == 'C' else 'at most '}{most} characters")
    if kind in _PRINTABLE:
        if not value.isascii() or not is_printable(value.encode()):
            raise ValueError(f"{kind} has characters that a PrintableString cannot have")
        return tlv(PRINTABLE_STRING, value.encode())
    if kind in _IA5:
        if not value.isascii():
            raise ValueError(f"{kind} has characters outside ASCII")
        return tlv(IA5_STRING, value.encode())
    return tlv(UTF8_STRING, value.encode())


def _template(kind: str, rest: str, text: str) -> Template:
    """Split a template into texts and claims; adjacent texts are joined."""
    found, parts, place = _PARTS.match(rest), list[tuple[str, str]](), 0
    while found is not None:
        place, claim = found.end(), found[1] or ""
        plain = found[2] or ("" if claim else found[0][0])
        if claim and claim not in CLAIMS:
            raise ValueError(f'no claim {claim}; there are {", ".join(CLAIMS)}: "{text}"')
        if plain and parts and parts[-1][0]:
            parts[-1] = (parts[-1][0] + plain, "")
        else:
            parts.append((plain, claim))
        found = _PARTS.match(rest, place)
    if place != len(rest) or not parts or HIDDEN.search(rest):
        raise ValueError(f'not a template: empty, or a brace alone (write {{{{ or }}}}): "{text}"')
    return Template(kind, tuple(parts))
