"""Gates 2 to 6 of `signed`, which need only the token, its anchors and the CSR. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from services.validator.challenges.binding import mismatch
from services.validator.challenges.claims import (
    Claims,
    NumericDate,
    UnknownVersionError,
    issuer_of,
    read_claims,
    read_payload,
)
from services.validator.challenges.jws import (
    Anchor,
    Jws,
    MalformedTokenError,
    UnacceptableTokenError,
    read_jws,
    verified_by,
)
from services.validator.challenges.subject import PLAIN
from services.validator.challenges.verifier import ChallengeResult, passed, refused
from shared.log.events.enrollment import GateResult
from shared.log.reasons import Reason
from shared.x509.csr import CertificationRequest

_ISSUER_SHOWN: Final = 100  # characters


@dataclass(frozen=True, slots=True)
class AnchorPool:
    """The anchors of a profile; a tenant's (`iss`) own anchors replace the common ones."""

    common: tuple[Anchor, ...] = ()
    tenants: Mapping[str, tuple[Anchor, ...]] = field(default_factory=dict)
    sha256: str = ""

    def of(self, issuer: str) -> tuple[Anchor, ...]:
        """Return the anchors that may have signed a token of this issuer."""
        return self.tenants.get(issuer, self.common)

    def all(self) -> tuple[Anchor, ...]:
        """Return the common anchors and every tenant's."""
        return tuple(anchor for each in self.bundles().values() for anchor in each)

    def bundles(self) -> dict[str | None, tuple[Anchor, ...]]:
        """Return the anchors of each bundle by issuer, None for the common bundle."""
        found: dict[str | None, tuple[Anchor, ...]] = {None: self.common}
        found.update(self.tenants)
        return found


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a profile requires of tokens; times in seconds, `validity` 0 for no limit.

    `attributes` are those that a subject may hold beside the CN.
    """

    audience: str | None = None
    validity: int = 3600
    tolerance: int = 60
    allow_unclaimed: bool = False
    attributes: frozenset[str] = PLAIN


@dataclass(frozen=True, slots=True)
class TokenResult:
    """The results of gates 2 to 6, and the claims once a connector vouched for them."""

    verified: ChallengeResult
    claims: Claims | None = None


def check_token(
    token: str, pool: AnchorPool, rules: TokenRules, csr: CertificationRequest, now: int
) -> TokenResult:
    """Run a token through the gates in order; `now` in Unix seconds."""
    gates: list[GateResult] = []
    claims: Claims | None = None
    for step in _steps(token, pool, rules, csr, now):
        if isinstance(step, Claims):
            claims = step
            continue
        gates += step.gates
        if step.refusal is not None:
            return TokenResult(replace(step, gates=tuple(gates)), claims)
    return TokenResult(ChallengeResult(tuple(gates)), claims)


def _steps(
    token: str, pool: AnchorPool, rules: TokenRules, csr: CertificationRequest, now: int
) -> Iterator[ChallengeResult | Claims]:
    """Yield each gate's result as it runs, and the claims once they are read."""
    try:
        jws = read_jws(token)
    except MalformedTokenError as error:
        yield refused(
            "signature", Reason.MALFORMED, "the challenge is not a signed token", str(error)
        )
        return
    except UnacceptableTokenError as error:
        yield refused("signature", Reason.SIGNATURE_INVALID, str(error))
        return
    payload = read_payload(jws.payload)
    yield _signature(jws, pool, issuer_of(payload), now)
    try:
        claims = read_claims(payload)
    except UnknownVersionError:
        yield refused("version", Reason.UNKNOWN_VERSION, "unsupported token version")
        return
    except MalformedTokenError as error:
        yield refused(
            "version", Reason.MALFORMED, "the token's claims are missing or malformed", str(error)
        )
        return
    yield claims
    yield ChallengeResult((passed("version", "v1"),))
    yield _time(claims, rules, now)
    yield _audience(claims, rules)
    yield _binding(claims, rules, csr)


def _signature(jws: Jws, pool: AnchorPool, issuer: str, now: int) -> ChallengeResult:
    """Run gate 2: a valid anchor of the token's issuer signed it."""
    anchors = pool.of(issuer)
    if not anchors:
        return refused("signature", Reason.SIGNATURE_INVALID, *_no_bundle(issuer))
    anchor = verified_by(jws, anchors, now)
    if anchor is not None:
        return ChallengeResult((passed("signature", f"{jws.algorithm} by {anchor.subject}"),))
    valid = sum(each.valid(now) for each in anchors)
    compared = f"{jws.algorithm}, tried {valid} valid of {len(anchors)} anchors"
    return refused(
        "signature", Reason.SIGNATURE_INVALID, "no trusted connector signed the token", compared
    )


def _no_bundle(issuer: str) -> tuple[str, str]:
    """Return what a refusal says if no bundle is for this issuer, which nobody vouched for."""
    said = f"iss {issuer[:_ISSUER_SHOWN]}" if issuer else "no iss"
    return "no trust anchors are configured for the token's issuer", f"unverified: {said}"


def _time(claims: Claims, rules: TokenRules, now: int) -> ChallengeResult:
    """Run gate 4: the token's times, with the clock tolerance."""
    issued, expires = _utc(claims.issued_at), _utc(claims.expires_at)
    compared = f"issued {issued}, expires {expires}, now {_utc(now)}"
    if now + rules.tolerance < claims.issued_at:
        return refused("time", Reason.NOT_YET_VALID, "the token is not valid yet", compared)
    if now - rules.tolerance >= claims.expires_at:
        return refused("time", Reason.EXPIRED, "the token has expired", compared)
    if rules.validity and claims.issued_at < now - rules.validity:
        return refused("time", Reason.EXPIRED, "the token was issued too long ago", compared)
    return ChallengeResult((passed("time", compared),))


def _audience(claims: Claims, rules: TokenRules) -> ChallengeResult:
    """Run gate 5: the token is for the pinned audience."""
    if rules.audience is None:
        return ChallengeResult((passed("audience", "none pinned"),))
    told = claims.audience or ()
    compared = f"pinned {rules.audience}, token says {', '.join(told) or 'nothing'}"
    if rules.audience not in told:
        return refused(
            "audience", Reason.WRONG_AUDIENCE, "the token is for another audience", compared
        )
    return ChallengeResult((passed("audience", compared),))


def _binding(claims: Claims, rules: TokenRules, csr: CertificationRequest) -> ChallengeResult:
    """Run gate 6: the CSR asks for what the token is for."""
    found = mismatch(
        claims, csr, allow_unclaimed=rules.allow_unclaimed, attributes=rules.attributes
    )
    if found is None:
        return ChallengeResult(
            (passed("binding", f"device_name {claims.device_name or 'not claimed'}"),)
        )
    detail = f"the request does not match the token: {found.dimension}"
    compared = f"asked {found.asked}; claimed {found.claimed}"
    return refused("binding", Reason.CLAIM_MISMATCH, detail, compared)


def _utc(seconds: NumericDate) -> str:
    """Format a time as RFC 3339, with up to nine decimals."""
    whole = int(seconds)
    fraction = f".{int((seconds - whole) * 1_000_000_000):09d}".rstrip(".0")
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"
