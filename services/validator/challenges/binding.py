"""Gate 6: compares the names in the CSR with those that the token was issued for. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from services.validator.challenges import subject
from services.validator.challenges.claims import Claims
from shared.x509.csr import CertificationRequest
from shared.x509.names import GeneralName

# What Intune adds to the names: the user's SID and the device's id (strong mapping, NAC).
_ALLOWED_URIS: Final = re.compile(
    r"tag:microsoft\.com,2022-09-14:sid:S-1(-[0-9]+)+|IntuneDeviceId://\{?[0-9A-Fa-f-]{36}\}?"
)
_BLANKS: Final = " \t\r\n"
_NO_TEXT: Final = "\N{REPLACEMENT CHARACTER}"  # stands for bytes that do not decode


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first dimension in which CSR and token differ, and both values."""

    dimension: str
    asked: str
    claimed: str


def mismatch(
    claims: Claims,
    csr: CertificationRequest,
    *,
    allow_unclaimed: bool = False,
    attributes: frozenset[str] = subject.PLAIN,
) -> Mismatch | None:
    """Compare subject and subjectAltName; return None if they agree.

    A dimension that the token does not claim must be empty, unless `allow_unclaimed`. The subject
    may hold only the CN and `attributes`.
    """
    if found := next(_mismatches(claims, csr, allow_unclaimed=allow_unclaimed), None):
        return found
    if beside := subject.first_disallowed(csr.subject, attributes):
        return Mismatch("subject", beside, subject.allowed_text(attributes))
    return None


def _mismatches(
    claims: Claims, csr: CertificationRequest, *, allow_unclaimed: bool
) -> Iterator[Mismatch]:
    if claims.device_name is not None:
        names = subject.common_names(csr.subject)
        if names != [claims.device_name] or _NO_TEXT in claims.device_name:
            shown = "unsupported string type" if names is None else _shown(names)
            yield Mismatch("device_name", shown, claims.device_name)
    for kind, claimed in (
        ("dns", claims.san_dns),
        ("rfc822", claims.san_rfc822),
        ("upn", claims.san_upn),
    ):
        asked = lowered(san.value for san in csr.sans if san.kind == kind)
        if claimed is None and not (asked and not allow_unclaimed):
            continue
        if asked != folded(claimed or ()):
            yield Mismatch(f"san_{kind}", _shown(asked), _shown(folded(claimed or ())))
    others = [] if allow_unclaimed else [f"{s.kind}:{s.value}" for s in csr.sans if _foreign(s)]
    if others:
        yield Mismatch("san_other", _shown(others), "none")


def _foreign(san: GeneralName) -> bool:
    """Return whether a SAN is neither of a kind that is claimed nor an allowed exception."""
    if san.kind in ("dns", "rfc822", "upn"):
        return False
    return not (san.kind == "uri" and _ALLOWED_URIS.fullmatch(san.value))


def names_one_of(common_names: list[str] | None, sans: Iterable[str]) -> bool:
    """Return whether a subject has no CN, or only CNs among the SANs (`kind:value`) vouched for.

    `common_names` are those of the request; None if one is not of a DirectoryString type.
    """
    values = folded(san.partition(":")[2] for san in sans)
    return common_names is not None and lowered(common_names) <= values


def folded(values: Iterable[str]) -> frozenset[str]:
    """Return the names that somebody vouches for: lower-cased, trimmed, without duplicates."""
    return lowered(value.strip(_BLANKS) for value in values)


def lowered(values: Iterable[str]) -> frozenset[str]:
    """Return the requested names: lower-cased, without duplicates.

    Blanks would be certified, so they are not trimmed.
    """
    return frozenset("".join(map(_lower, value)) for value in values)


def _lower(character: str) -> str:
    """Lower-case, but never map a non-ASCII letter to ASCII: the Kelvin sign is not a k."""
    lowered = character.lower()
    return character if lowered.isascii() and not character.isascii() else lowered


def _shown(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "none"
