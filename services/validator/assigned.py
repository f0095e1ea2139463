"""The names and the SID of a certificate that a verifier's claims decide, and their gates. Pure.

A first enrollment's names are built after the verifier ran. A renewal keeps the names of the
certificate that signed it, whatever the CSR asks for. A SID comes from a look-up every time.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import msgspec

from services.validator.facts import names_sha256
from services.validator.gates import (
    Decision,
    Policy,
    PolicyInput,
    Refusal,
    bad_sans,
    bad_subject,
    decided_names,
)
from shared.limits import NAME_BYTES, SAN_BYTES, SAN_ENTRIES, shortened
from shared.log.events.enrollment import AssignedNames, Facts, GateResult
from shared.log.reasons import Reason
from shared.x509.certificate_names import CertificateNames
from shared.x509.name_templates import (
    Claims,
    MissingClaimError,
    UnfitNameError,
    write_sans,
    write_subject,
)
from shared.x509.names import name_text
from shared.x509.sid import is_sid, sid_in_uri

# The gates of this module, which run again on what was assigned before a hold.
GATES = frozenset({"subject", "sans", "sid"})


class _Gate(NamedTuple):
    name: str
    refusal: Refusal | None
    detail: str = ""


def assign(policy_input: PolicyInput, decision: Decision, claims: Claims) -> Decision:
    """Return the decision with names and SID from a verifier's claims, and their gates."""
    policy = policy_input.policy
    try:
        names = _names(policy_input, claims)
        sid = _sid(claims) if policy.sid_extension else ""
    except MissingClaimError as error:
        detail = f"the verifier did not say this device's {error}"
        return _stopped(decision, "claims", Refusal(Reason.CLAIM_MISSING, detail))
    except UnfitNameError as error:
        detail = shortened(f"the verifier's claims make an invalid name: {error}")
        return _stopped(decision, "claims", Refusal(Reason.SUBJECT_NOT_ALLOWED, detail))
    return _checked(policy_input, decision, names, sid)


def assign_again(
    policy_input: PolicyInput, decision: Decision, assigned: AssignedNames | None
) -> Decision:
    """Return the decision on a held request with the names and the SID that an operator saw."""
    policy = policy_input.policy
    if assigned is None:
        is_known = policy_input.opened.renews and not policy.sid_extension
        if not policy.assigns or is_known:
            return decision
        detail = "the request was held before the profile assigned names: enroll again"
        return _stopped(decision, "claims", Refusal(Reason.CLAIM_MISSING, detail))
    names = CertificateNames(assigned.subject, assigned.san or None)
    sid = assigned.sid if policy.sid_extension else ""
    if policy.sid_extension and not sid:
        detail = "the request was held before the profile asked for a SID: enroll again"
        return _stopped(decision, "claims", Refusal(Reason.CLAIM_MISSING, detail))
    return _checked(policy_input, decision, names, sid)


def held_names(policy: Policy, decision: Decision) -> AssignedNames | None:
    """Return what an event about a hold says of assigned names; None if the profile has none."""
    if not policy.assigns or decision.names is None:
        return None
    san = decision.names.san_value or b""
    return AssignedNames(subject=decision.names.subject, san=san, sid=decision.sid)


def certified_facts(facts: Facts, decision: Decision) -> Facts:
    """Return the facts with the names of the certificate, which people look for."""
    if decision.names is None:
        return facts
    sans = tuple(f"{san.kind}:{san.value}" for san in decision.names.sans)
    return msgspec.structs.replace(facts, subject=name_text(decision.names.subject), sans=sans)


def _names(policy_input: PolicyInput, claims: Claims) -> CertificateNames:
    opened, policy = policy_input.opened, policy_input.policy
    names = decided_names(policy_input)
    if opened.renews:
        return names
    if policy.subject_template:
        names = replace(names, subject=write_subject(policy.subject_template, claims))
    if policy.san_templates:
        names = replace(names, san_value=write_sans(policy.san_templates, claims))
    return names


def _sid(claims: Claims) -> str:
    found = claims.get("sid")
    if found is None:
        raise MissingClaimError("sid")
    if not is_sid(found[0]):
        raise UnfitNameError("the SID is not that of an account in a domain (S-1-5-21-...)")
    return found[0]


def _checked(
    policy_input: PolicyInput, decision: Decision, names: CertificateNames, sid: str
) -> Decision:
    gates = [each for each in decision.gates if each.gate not in GATES]
    decision = replace(decision, gates=tuple(gates), names=names, sid=sid)
    for gate in _gates(policy_input, names, sid):
        if gate.refusal is not None:
            return _stopped(decision, gate.name, gate.refusal)
        passed = GateResult(gate=gate.name, passed=True, detail=shortened(gate.detail))
        decision = replace(decision, gates=(*decision.gates, passed))
    return replace(decision, existing=_still_existing(policy_input, decision))


def _gates(policy_input: PolicyInput, names: CertificateNames, sid: str) -> Iterator[_Gate]:
    """Yield the gates of the names, with details for an operator who has to approve them."""
    asked = CertificateNames.of_csr(policy_input.opened.csr)
    subject, sans = name_text(names.subject) or "none", _listed(names)
    if names.subject != asked.subject:
        subject = f"{subject} (requested: {name_text(asked.subject) or 'none'})"
    yield _Gate("subject", _too_large(names) or bad_subject(names, policy_input), subject)
    if names.san_value != asked.san_value:
        sans = f"{sans} (requested: {_listed(asked)})"
    yield _Gate("sans", bad_sans(names, policy_input), sans)
    if sid:
        yield _Gate("sid", _other_account(names, sid), sid)


def _other_account(names: CertificateNames, sid: str) -> Refusal | None:
    """Refuse names with a URI that maps to another account than the extension."""
    named = (sid_in_uri(san.value) for san in names.sans if san.kind == "uri")
    if all(each in (None, sid) for each in named):
        return None
    problem = "the SID in a subjectAltName URI is not the one that was looked up"
    return Refusal(Reason.SAN_NOT_ALLOWED, problem)


def _listed(names: CertificateNames) -> str:
    return ", ".join(f"{san.kind}:{san.value}" for san in names.sans) or "none"


def _too_large(names: CertificateNames) -> Refusal | None:
    if len(names.subject) > NAME_BYTES:
        return Refusal(Reason.SUBJECT_NOT_ALLOWED, f"the subject has more than {NAME_BYTES} bytes")
    if len(names.san_value or b"") > SAN_BYTES or len(names.sans) > SAN_ENTRIES:
        return Refusal(Reason.SAN_NOT_ALLOWED, "the verifier's claims make too many names")
    return None


def _still_existing(policy_input: PolicyInput, decision: Decision) -> str:
    """Return the serial of the key's certificate if it has these names and this SID, else ""."""
    live, names = policy_input.history.live, decision.names
    if not decision.existing or live is None or names is None:
        return ""
    same = (live.record.names_sha256, live.record.sid) == (names_sha256(names), decision.sid)
    return decision.existing if same else ""


def _stopped(decision: Decision, gate: str, refusal: Refusal) -> Decision:
    result = GateResult(gate=gate, passed=False, detail=refusal.detail)
    return replace(decision, gates=(*decision.gates, result), refusal=refusal)
