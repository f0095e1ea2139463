"""The checks of a request against its profile, before any challenge. Pure: the facts are input."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa

from services.validator.facts import DecryptedRequest, History, KnownCertificate, names_sha256
from shared.ca.partitions import NO_PARTITIONS, Partitioning
from shared.ca.validity import ca_ended, ca_not_begun, renewable_from
from shared.limits import shortened
from shared.log.events.enrollment import GateResult
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from shared.x509.blocked_keys import BlockedKeys, usual_spki
from shared.x509.certificate_names import CertificateNames
from shared.x509.csr import EXTENDED_KEY_USAGE, SUBJECT_ALT_NAME, CertificationRequest
from shared.x509.dn import write_dn
from shared.x509.name_constraints import NameConstraints, excluded_sans, excluded_subject
from shared.x509.name_patterns import Pattern, SanPattern, unmatched
from shared.x509.name_rules import bad_general_names, bad_name
from shared.x509.name_templates import Template
from shared.x509.names import read_name
from shared.x509.policies import CertificatePolicy
from shared.x509.sid import SID, read_sid, sid_in_uri
from shared.x509.usages import EC_KEY_USAGES, usage_name, usage_oids
from shared.x509.weak_keys import weak_rsa

_GRANTED = frozenset({SUBJECT_ALT_NAME, EXTENDED_KEY_USAGE})


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """When a certificate of the profile may be renewed; times are in seconds.

    `window` is how long before its end a certificate may be renewed: None for the last third of its
    life, 0 for any time. `grace` is how long after its end it may still be renewed.
    """

    allowed: bool = True
    window: int | None = None
    grace: int = 0
    challenge: bool = False
    any_names: bool = False
    key_reuse: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What one profile allows, and what its certificates contain; times are in seconds."""

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
    external: bool = False
    crl_distribution_points: tuple[str, ...] = ()
    crl_partitioning: Partitioning = NO_PARTITIONS
    subject_patterns: tuple[Pattern, ...] = ()
    san_patterns: tuple[SanPattern, ...] = ()
    subject_template: tuple[Template, ...] = ()
    san_templates: tuple[Template, ...] = ()
    sid_extension: bool = False
    ca_issuers: tuple[str, ...] = ()
    ocsp: tuple[str, ...] = ()
    must_staple: bool = False
    certificate_policies: tuple[CertificatePolicy, ...] = ()
    manual: bool = False
    staple_ocsp: bool = False
    fleet: str = ""
    connection: str = ""
    withheld: bool = False
    any_signer: bool = True
    renewal: RenewalPolicy = RenewalPolicy()

    @property
    def builds_names(self) -> bool:
        """Whether names come from templates rather than from the CSR."""
        return bool(self.subject_template or self.san_templates)

    @property
    def assigns(self) -> bool:
        """Whether a certificate contains what a verifier says of its device."""
        return self.builds_names or self.sid_extension


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a gate refused: the reason code, and a sentence for people."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of each gate up to the first refusal, and that refusal, if any.

    `existing` is the serial number of the certificate that the key already has and that answers the
    request, "" if a new one is to be issued. `claim` says who vouched for the device. `names` are
    those of the certificate, None for the CSR's, and `sid` is the account in it, or "".
    """

    gates: tuple[GateResult, ...]
    refusal: Refusal | None
    history: History
    existing: str = ""
    claim: Claim | None = None
    names: CertificateNames | None = None
    sid: str = ""


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """What the gates evaluate: the request, what the log knows, the profile, and times (Unix s).

    `decided_at` is later than `asked_at` if the request was held for an operator. `ca` is when the
    CA's validity begins and ends (Unix s), `constraints` what names its chain excludes, `blocked`
    the keys that are certified for nobody.
    """

    opened: DecryptedRequest
    history: History
    profile: str
    policy: Policy
    asked_at: int
    decided_at: int
    ca: tuple[float, float] = (-math.inf, math.inf)
    constraints: tuple[NameConstraints, ...] = ()
    blocked: BlockedKeys = field(default_factory=BlockedKeys)


def decide(policy_input: PolicyInput) -> Decision:
    """Run the gates in order and stop at the first refusal."""
    results: list[GateResult] = []
    for name, refusal, detail in _gates(policy_input):
        said = refusal.detail if refusal else detail
        results.append(GateResult(gate=name, passed=refusal is None, detail=said))
        if refusal is not None:
            return Decision(tuple(results), refusal, policy_input.history)
    names = decided_names(policy_input) if policy_input.policy.assigns else None
    existing = _existing(policy_input)
    return Decision(tuple(results), None, policy_input.history, existing, names=names)


def decided_names(policy_input: PolicyInput) -> CertificateNames:
    """Return the certificate's names as far as no verifier decides them.

    With templates, a renewal keeps the names of its certificate; otherwise they are the CSR's.
    """
    opened = policy_input.opened
    if opened.signer_names is not None and policy_input.policy.builds_names:
        return opened.signer_names
    return CertificateNames.of_csr(opened.csr)


def _gates(policy_input: PolicyInput) -> Iterator[tuple[str, Refusal | None, str]]:
    """Yield (name, refusal, detail if it passed) of each gate, evaluated one by one."""
    opened, policy = policy_input.opened, policy_input.policy
    if refusal := _authority(*policy_input.ca, policy_input.decided_at):
        yield "ca", refusal, ""
    yield "key", _key(opened, policy), ""
    yield from _name_gates(policy_input)
    if refusal := _sids(opened.csr):
        yield "sid", refusal, ""
    if opened.csr.extended_key_usages:
        yield "usages", _usages(opened.csr, policy), ""
    if ignored := _ignored_extensions(opened.csr):
        yield "extensions", None, ignored
    yield "compromise", _compromised(policy_input), ""
    if opened.renews or opened.renewal_asked:
        yield "renewal", _renewal(policy_input), opened.renews
    if not wants_challenge(policy_input):
        yield "challenge", None, "not required for a renewal"
    elif opened.csr.challenge is None:
        missing = "the request has no challenge password"
        yield "challenge", Refusal(Reason.CHALLENGE_MISSING, missing), ""


def _name_gates(policy_input: PolicyInput) -> Iterator[tuple[str, Refusal | None, str]]:
    """Yield the gates of names that are known; those that templates build are checked later."""
    policy, names = policy_input.policy, decided_names(policy_input)
    if policy_input.opened.renews or not policy.subject_template:
        yield "subject", bad_subject(names, policy_input), ""
    if policy_input.opened.renews or not policy.san_templates:
        yield "sans", bad_sans(names, policy_input), ""


def wants_challenge(policy_input: PolicyInput) -> bool:
    """Return whether a verifier must run: not for a renewal, unless the profile requires it."""
    return not policy_input.opened.renews or policy_input.policy.renewal.challenge


def _ignored_extensions(csr: CertificationRequest) -> str:
    """Name the requested extensions that the profile alone decides on."""
    asked = dict.fromkeys(e.oid for e in csr.extensions if e.oid not in _GRANTED)
    return shortened(f"ignored in the request: {', '.join(asked)}") if asked else ""


def _sids(csr: CertificationRequest) -> Refusal | None:
    """Refuse a CSR whose SID extension is not of the account in its SID URI.

    The extension is never copied, but a CSR that names two accounts was tampered with.
    """
    named = [sid for san in csr.sans if san.kind == "uri" and (sid := sid_in_uri(san.value))]
    asked = {read_sid(each.value) for each in csr.extensions if each.oid == SID}
    if named and not asked.issubset(named):
        problem = "the requested SID extension is not of the account in the SID URI"
        return Refusal(Reason.SAN_NOT_ALLOWED, problem)
    return None


def _usages(csr: CertificationRequest, policy: Policy) -> Refusal | None:
    """Refuse usages that the profile does not have; a device would rely on them in vain."""
    allowed = usage_oids(policy.extended_key_usages)
    for usage in csr.extended_key_usages:
        if usage not in allowed:
            detail = shortened(f"extended key usage {usage_name(usage)} is not allowed")
            return Refusal(Reason.USAGE_NOT_ALLOWED, detail)
    return None


def _compromised(policy_input: PolicyInput) -> Refusal | None:
    """Refuse keys that others have, also as the signer of a renewal: they could renew it."""
    opened, blocked = policy_input.opened, policy_input.blocked
    if policy_input.history.key_compromised:
        return Refusal(Reason.KEY_COMPROMISED, "the key was revoked as compromised")
    spellings = {opened.csr.spki, usual_spki(opened.csr.public_key)} if len(blocked) else ()
    if problem := next(filter(None, map(blocked.problem, spellings)), ""):
        return Refusal(Reason.KEY_COMPROMISED, problem)
    if opened.renews and blocked.problem(opened.signer_spki):
        problem = "the key of the certificate to renew is blocked: enroll again with a new key"
        return Refusal(Reason.KEY_COMPROMISED, problem)
    return None


def _renewal(policy_input: PolicyInput) -> Refusal | None:
    """Apply the renewal rules to the certificate on record."""
    known = policy_input.history.renewed
    signer = policy_input.opened.signer_spki_sha256
    if (
        known is None
        or known.profile != policy_input.profile
        or known.record.spki_sha256 != signer  # anyone can choose a serial number
    ):
        return Refusal(Reason.NOT_RENEWABLE, "the signer's certificate is not of this profile")
    broken = (refusal for holds, refusal in _renewal_rules(known, policy_input) if not holds)
    return next(broken, None)


def _renewal_rules(
    known: KnownCertificate, policy_input: PolicyInput
) -> Iterator[tuple[bool, Refusal]]:
    """Yield (whether the rule holds, the refusal if it does not) for each rule."""
    rules, record, at = policy_input.policy.renewal, known.record, policy_input.asked_at
    not_renewable = Reason.NOT_RENEWABLE
    yield rules.allowed, Refusal(not_renewable, "this profile does not allow renewal")
    yield not known.revoked, Refusal(not_renewable, "the signer's certificate is revoked")
    alive = at <= record.not_after + rules.grace
    yield alive, Refusal(not_renewable, "the signer's certificate has expired")
    due = at >= _renewable_from(known, rules.window)
    yield due, Refusal(Reason.RENEWED_TOO_EARLY, "it is too early to renew this certificate")
    kept = rules.any_names or policy_input.policy.builds_names
    same = kept or record.names_sha256 == names_sha256(policy_input.opened.csr)
    yield same, Refusal(Reason.NAMES_CHANGED, "a renewal may not change subject or subjectAltName")
    fresh = rules.key_reuse or not (policy_input.opened.key_reused and record.key_uses)
    yield (
        fresh,
        Refusal(Reason.KEY_REUSED, "the key was already reused in a renewal: use a new key"),
    )


def _renewable_from(known: KnownCertificate, window: int | None) -> int:
    """Return the time (Unix seconds) from which a certificate may be renewed."""
    return renewable_from(known.record.not_before, known.record.not_after, window)


def _existing(policy_input: PolicyInput) -> str:
    """Return the serial number of the key's certificate for these names, "" if a new one is due.

    So a first enrollment that is sent again in another form does not pile up certificates. In the
    last third of the certificate's life, a device that does not renew gets a new one. Names that
    templates build are compared when they are known.
    """
    live = policy_input.history.live
    if live is None or live.revoked or live.profile != policy_input.profile:
        return ""
    policy = policy_input.policy
    same = live.record.names_sha256 == names_sha256(policy_input.opened.csr)
    same_account = policy.sid_extension or not live.record.sid
    if not policy.builds_names and not (same and same_account):
        return ""
    return live.record.serial if policy_input.decided_at < _renewable_from(live, None) else ""


def _authority(begin: float, end: float, at: int) -> Refusal | None:
    """Refuse while the CA is not valid; `at` is a time of the log, as in every decision."""
    problem = ca_ended(end, at) or ca_not_begun(begin, at)
    return Refusal(Reason.CA_NOT_VALID, problem) if problem else None


def _key(opened: DecryptedRequest, policy: Policy) -> Refusal | None:
    """Require a key of a kind that the profile lists, with no known weakness and some use."""
    facts, key = opened.facts, opened.csr.public_key
    kind = f"rsa:{facts.key_bits}" if facts.key_type == "rsa" else f"ec:{facts.key_type}"
    if kind not in policy.key_types:
        return Refusal(Reason.KEY_NOT_ALLOWED, f"key type {kind} is not allowed")
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        problem = weak_rsa(numbers.n, numbers.e, legacy=policy.legacy)
    else:
        problem = _useless_ec(policy)
    return Refusal(Reason.KEY_NOT_ALLOWED, problem) if problem else None


def _useless_ec(policy: Policy) -> str:
    """Return why the profile has no use for an EC key, "" if it has one.

    Its certificate would have an empty key usage, which no issuer signs.
    """
    if EC_KEY_USAGES.isdisjoint(policy.key_usages):
        return "an EC key cannot encipher, and the profile has no other key usage"
    return ""


def bad_subject(names: CertificateNames, policy_input: PolicyInput) -> Refusal | None:
    """Require a subject or a SAN, and check the subject (RFC 5280 s4.1.2.6).

    It must be well-formed, match the profile's patterns, and not be excluded by the CAs.
    """
    if len(names.subject) <= len(b"\x30\x00") and not names.sans:
        return Refusal(Reason.SUBJECT_NOT_ALLOWED, "the request has no subject")
    problem = (
        bad_name(names.subject)
        or _unmatched_attribute(names.subject, policy_input.policy)
        or excluded_subject(names.subject, policy_input.constraints, has_sans=bool(names.sans))
    )
    return Refusal(Reason.SUBJECT_NOT_ALLOWED, problem) if problem else None


def _unmatched_attribute(subject: bytes, policy: Policy) -> str:
    other = unmatched(read_name(subject), policy.subject_patterns)
    return shortened(f"{write_dn((other,))} matches none of subject_patterns") if other else ""


def bad_sans(names: CertificateNames, policy_input: PolicyInput) -> Refusal | None:
    """Check each name by the rules of its kind, then against the profile and the CAs."""
    policy = policy_input.policy
    if names.san_value is None:
        return None
    if problem := bad_general_names(names.san_value):
        return Refusal(Reason.SAN_NOT_ALLOWED, problem)
    for san in names.sans:
        if san.kind not in policy.sans:
            return Refusal(
                Reason.SAN_NOT_ALLOWED, f"a subjectAltName of kind {san.kind} is not allowed"
            )
    if other := unmatched([(san.kind, san.value) for san in names.sans], policy.san_patterns):
        problem = shortened(f"{other[0]} {other[1]} matches none of san_patterns")
        return Refusal(Reason.SAN_NOT_ALLOWED, problem)
    excluded = excluded_sans(names.san_value, policy_input.constraints)
    return Refusal(Reason.SAN_NOT_ALLOWED, excluded) if excluded else None
