"""The gates of the certificate profile, before any challenge. Pure, over facts gathered before."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from services.validator.facts import DecryptedRequest, History, KnownCertificate, names_sha256
from shared.ca.validity import ca_ended, ca_not_begun
from shared.limits import shortened
from shared.log.events.enrollment import Facts, GateResult
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from shared.x509.csr import SUBJECT_ALT_NAME, CertificationRequest
from shared.x509.name_rules import bad_general_names, bad_name


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """When a certificate of the profile may be renewed; times in seconds.

    `window` is None for the last third of a certificate's life, 0 for any time.
    """

    allowed: bool = True
    window: int | None = None
    grace: int = 0
    challenge: bool = False
    any_names: bool = False
    key_reuse: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What one profile allows, and what its certificates hold; times in seconds."""

    legacy: bool
    key_types: frozenset[str]
    sans: frozenset[str]
    key_usages: tuple[str, ...]
    extended_key_usages: tuple[str, ...]
    max_ttl: int
    backdate: int
    verdict_ttl: int
    issuer: str
    ca_spki_sha256: tuple[str, ...]
    crl_distribution_points: tuple[str, ...] = ()
    manual: bool = False
    fleet: str = ""
    any_signer: bool = True
    renewal: RenewalPolicy = RenewalPolicy()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A gate that did not open."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Every gate's result up to the first that refused, and that refusal if one did.

    `existing` is the serial of the certificate that the key has and that is the answer; `claim`
    says who vouched for the device.
    """

    gates: tuple[GateResult, ...]
    refusal: Refusal | None
    history: History
    existing: str = ""
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """All that is judged: the request, what the log knows, which profile, and when (Unix s).

    `decided_at` is later than `asked_at` where an operator held the request up. `ca` is from when
    until when the CA is valid (Unix s).
    """

    opened: DecryptedRequest
    history: History
    profile: str
    policy: Policy
    asked_at: int
    decided_at: int
    ca: tuple[float, float] = (-math.inf, math.inf)


def decide(question: PolicyInput) -> Decision:
    """Take the request through the gates in order; the first refusal ends it."""
    results: list[GateResult] = []
    for name, refusal, detail in _gates(question):
        said = refusal.detail if refusal else detail
        results.append(GateResult(gate=name, passed=refusal is None, detail=said))
        if refusal is not None:
            return Decision(tuple(results), refusal, question.history)
    return Decision(tuple(results), None, question.history, _existing(question))


def _gates(question: PolicyInput) -> Iterator[tuple[str, Refusal | None, str]]:
    """(name, refusal, what else is to be said) of each gate, asked one by one."""
    opened, policy = question.opened, question.policy
    if refusal := _authority(*question.ca, question.decided_at):
        yield "ca", refusal, ""
    yield "key", _key(opened.facts, policy), ""
    yield "subject", _subject(opened.csr), ""
    yield "sans", _sans(opened.csr, policy), ""
    if ignored := _not_taken(opened.csr):
        yield "extensions", None, ignored
    yield "compromise", _compromised(question.history), ""
    if opened.renews or opened.renewal_asked:
        yield "renewal", _renewal(question), opened.renews
    if not wants_challenge(question):
        yield "challenge", None, "a renewal needs none"
    elif opened.csr.challenge is None:
        missing = "the request has no challenge password"
        yield "challenge", Refusal(Reason.CHALLENGE_MISSING, missing), ""


def wants_challenge(question: PolicyInput) -> bool:
    """Whether a verifier has the last word: not on a renewal, unless the profile wants it so."""
    return not question.opened.renews or question.policy.renewal.challenge


def _not_taken(csr: CertificationRequest) -> str:
    """What the CSR asks for beside names: the profile decides on all of that."""
    asked = dict.fromkeys(e.oid for e in csr.extensions if e.oid != SUBJECT_ALT_NAME)
    return shortened(f"not taken from the request: {', '.join(asked)}") if asked else ""


def _compromised(history: History) -> Refusal | None:
    if not history.key_compromised:
        return None
    return Refusal(Reason.KEY_COMPROMISED, "the key was revoked as compromised")


def _renewal(question: PolicyInput) -> Refusal | None:
    """The rules for a renewal, by the certificate on record."""
    known = question.history.renewed
    signer = question.opened.signer_spki_sha256
    if (
        known is None
        or known.profile != question.profile
        or known.record.spki_sha256 != signer  # a serial number alone is anyone's to choose
    ):
        return Refusal(Reason.NOT_RENEWABLE, "the signer's certificate is not of this profile")
    broken = (refusal for holds, refusal in _renewal_rules(known, question) if not holds)
    return next(broken, None)


def _renewal_rules(
    known: KnownCertificate, question: PolicyInput
) -> Iterator[tuple[bool, Refusal]]:
    """(whether it holds, what is said where it does not) of each rule."""
    rules, record, at = question.policy.renewal, known.record, question.asked_at
    not_renewable = Reason.NOT_RENEWABLE
    yield rules.allowed, Refusal(not_renewable, "renewal is not allowed here")
    yield not known.revoked, Refusal(not_renewable, "the signer's certificate is revoked")
    alive = at <= record.not_after + rules.grace
    yield alive, Refusal(not_renewable, "the signer's certificate has expired")
    due = at >= _renewable_from(known, rules.window)
    yield due, Refusal(Reason.RENEWED_TOO_EARLY, "it is too early to renew this certificate")
    same = rules.any_names or record.names_sha256 == names_sha256(question.opened.csr)
    yield same, Refusal(Reason.NAMES_CHANGED, "a renewal may not change subject or subjectAltName")
    fresh = rules.key_reuse or not (question.opened.key_reused and record.key_uses)
    yield fresh, Refusal(Reason.KEY_REUSED, "the key was renewed with itself before")


def _renewable_from(known: KnownCertificate, window: int | None) -> int:
    """From when (Unix seconds) on a certificate may be renewed."""
    begin, end = known.record.not_before, known.record.not_after
    if window == 0:
        return begin
    return end - (window if window is not None else (end - begin) // 3)


def _existing(question: PolicyInput) -> str:
    """The serial of the certificate that the key has under these names, until it is due.

    So a first enrollment sent again in other words does not fill the world with certificates; in
    its last third a device without renewal gets a new one.
    """
    live = question.history.live
    if live is None or live.revoked or live.profile != question.profile:
        return ""
    if live.record.names_sha256 != names_sha256(question.opened.csr):
        return ""
    return live.record.serial if question.decided_at < _renewable_from(live, None) else ""


def _authority(begin: float, end: float, at: int) -> Refusal | None:
    """A CA certifies while it is valid itself; by the log's times, like all that is decided."""
    problem = ca_ended(end, at) or ca_not_begun(begin, at)
    return Refusal(Reason.CA_NOT_VALID, problem) if problem else None


def _key(facts: Facts, policy: Policy) -> Refusal | None:
    kind = f"rsa:{facts.key_bits}" if facts.key_type == "rsa" else f"ec:{facts.key_type}"
    if kind in policy.key_types:
        return None
    return Refusal(Reason.KEY_NOT_ALLOWED, f"key type {kind} is not allowed here")


def _subject(csr: CertificationRequest) -> Refusal | None:
    """Something must name the device, in the form that certificates have (RFC 5280 s4.1.2.6)."""
    if len(csr.subject) <= len(b"\x30\x00") and not csr.sans:
        return Refusal(Reason.SUBJECT_NOT_ALLOWED, "the request names no subject")
    problem = bad_name(csr.subject)
    return Refusal(Reason.SUBJECT_NOT_ALLOWED, problem) if problem else None


def _sans(csr: CertificationRequest, policy: Policy) -> Refusal | None:
    """Each name by its own rule, then by the profile's kinds."""
    if csr.san_value is not None and (problem := bad_general_names(csr.san_value)):
        return Refusal(Reason.SAN_NOT_ALLOWED, problem)
    for san in csr.sans:
        if san.kind not in policy.sans:
            return Refusal(
                Reason.SAN_NOT_ALLOWED, f"a subjectAltName of kind {san.kind} is not allowed here"
            )
    return None
