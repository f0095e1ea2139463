"""A request as it is evaluated, and the verdict that a decision on it makes."""

from dataclasses import dataclass, replace

import msgspec

from services.validator.assigned import certified_facts
from services.validator.challenges.verifier import INTUNE, connection_of
from services.validator.facts import DecryptedRequest, History
from services.validator.gates import Decision, Policy, Refusal
from services.validator.template import build_template
from shared.ca.chains import Chain
from shared.log.envelope import Stored, decode
from shared.log.events.enrollment import (
    EnrollmentApproved,
    EnrollmentRejected,
    EnrollmentRequested,
    RenewedCertificate,
)
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.subjects import EnrollmentId


@dataclass(frozen=True)
class RequestContext:
    """A request event, its decrypted content, and the policy and CA that apply to it."""

    enrollment: EnrollmentId
    stored: Stored
    opened: DecryptedRequest
    policy: Policy
    chain: Chain

    @property
    def asked_at(self) -> int:
        """When the log stored the request (Unix s): the same on redelivery and after a hold."""
        return self.stored.seconds

    def judged_by(self, kind: str) -> "RequestContext":
        """Return a copy that names `kind`, whose verifier judged the request before the hold."""
        facts = msgspec.structs.replace(self.opened.facts, challenge=kind)
        return replace(self, opened=replace(self.opened, facts=facts))


def approved(context: RequestContext, decision: Decision, decided_at: int) -> EnrollmentApproved:
    """Return the approval; lifetimes begin at `decided_at` (Unix s), which is on the log too."""
    event = decode(context.stored.payload, context.stored.headers)
    by_intune = context.opened.facts.challenge == INTUNE
    asked = connection_of(decision.claim) if by_intune else ""
    gateway = event.gateway if isinstance(event, EnrollmentRequested) else ""
    return EnrollmentApproved(
        request_sha256=context.stored.sha256(),
        gateway=gateway,
        facts=certified_facts(context.opened.facts, decision),
        gates=decision.gates,
        template=build_template(
            context.opened.csr,
            context.policy,
            context.chain.ca,
            decided_at,
            decision.names,
            decision.sid,
        ),
        valid_until=decided_at + context.policy.verdict_ttl,
        renews=_renewed(context.opened, decision.history),
        existing=decision.existing,
        claim=decision.claim,
        staple=context.policy.staple_ocsp,
        confirmed_by=asked,
        withheld=bool(asked) and context.policy.withheld,
    )


def _renewed(opened: DecryptedRequest, history: History) -> RenewedCertificate | None:
    """Return the renewed certificate, and how many renewals in a row reused its key."""
    known = history.renewed
    if known is None:
        return None
    uses = known.record.key_uses + 1 if opened.key_reused else 0
    return RenewedCertificate(
        serial=known.record.serial, not_after=known.record.not_after, key_uses=uses
    )


def refused(context: RequestContext, decision: Decision, refusal: Refusal) -> EnrollmentRejected:
    """Return the rejection for a gate's refusal."""
    return EnrollmentRejected(
        request_sha256=context.stored.sha256(),
        reason=refusal.reason,
        fail_info=FAIL_INFO[refusal.reason],
        detail=refusal.detail,
        facts=context.opened.facts,
        gates=decision.gates,
        claim=decision.claim,
    )


def rejected(stored: Stored, reason: Reason, detail: str) -> EnrollmentRejected:
    """Return a rejection without facts and gate results."""
    return EnrollmentRejected(
        request_sha256=stored.sha256(), reason=reason, fail_info=FAIL_INFO[reason], detail=detail
    )
