"""The gates: certificate-profile policy, then the challenge. Pure, over facts gathered before."""

import hmac
from dataclasses import dataclass

from shared.csr import CertificationRequest
from shared.events import Facts, GateResult
from shared.names import GeneralName
from shared.reasons import Reason


@dataclass(frozen=True, slots=True)
class Policy:
    """What one profile allows, and what its certificates hold; times in seconds."""

    legacy: bool
    challenges: tuple[str, ...]
    key_types: frozenset[str]
    sans: frozenset[str]
    key_usages: tuple[str, ...]
    extended_key_usages: tuple[str, ...]
    max_ttl: int
    backdate: int
    verdict_ttl: int
    issuer: str
    ca_spki_sha256: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A gate that did not open."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Every gate's result up to the first that refused, and that refusal if one did."""

    gates: tuple[GateResult, ...]
    refusal: Refusal | None


def decide(csr: CertificationRequest, facts: Facts, policy: Policy) -> Decision:
    """Take the request through the gates in order; the first refusal ends it."""
    results: list[GateResult] = []
    for name, refusal in (
        ("key", _key(facts, policy)),
        ("subject", _subject(csr)),
        ("sans", _sans(csr.sans, policy)),
        ("challenge", _static(csr.challenge, policy)),
    ):
        results.append(
            GateResult(gate=name, passed=refusal is None, detail=refusal.detail if refusal else "")
        )
        if refusal is not None:
            return Decision(tuple(results), refusal)
    return Decision(tuple(results), None)


def _key(facts: Facts, policy: Policy) -> Refusal | None:
    kind = f"rsa:{facts.key_bits}" if facts.key_type == "rsa" else f"ec:{facts.key_type}"
    if kind in policy.key_types:
        return None
    return Refusal(Reason.KEY_NOT_ALLOWED, f"key type {kind} is not allowed here")


def _subject(csr: CertificationRequest) -> Refusal | None:
    """Something must name the device (RFC 5280 s4.1.2.6)."""
    if len(csr.subject) > len(b"\x30\x00") or csr.sans:
        return None
    return Refusal(Reason.SUBJECT_NOT_ALLOWED, "the request names no subject")


def _sans(sans: tuple[GeneralName, ...], policy: Policy) -> Refusal | None:
    for san in sans:
        if san.kind not in policy.sans:
            return Refusal(
                Reason.SAN_NOT_ALLOWED, f"a subjectAltName of kind {san.kind} is not allowed here"
            )
    return None


def _static(challenge: str | None, policy: Policy) -> Refusal | None:
    """Compare with every valid value, always with all of them, in constant time."""
    if challenge is None:
        return Refusal(Reason.CHALLENGE_MISSING, "the request has no challenge password")
    given = challenge.encode("utf-8", "surrogatepass")
    matched = [hmac.compare_digest(given, c.encode()) for c in policy.challenges]
    if any(matched):
        return None
    return Refusal(Reason.CHALLENGE_WRONG, "the challenge password is wrong")
