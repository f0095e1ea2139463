"""Turns a stored request into a context and decides on it: the gates first, then one verifier."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from services.validator.access import Access, verifiers
from services.validator.assigned import GATES, assign, assign_again
from services.validator.challenges.kind import VerifierContext, VerifierKind
from services.validator.challenges.records import Records, TooManyWaitError
from services.validator.challenges.verifier import (
    NONE,
    ChallengeRequest,
    ChallengeResult,
    Verifier,
    refused,
    route,
)
from services.validator.facts import (
    DecryptedRequest,
    OpeningRules,
    UndecryptableRequest,
    open_request,
    with_kept_names,
)
from services.validator.gates import Decision, Policy, PolicyInput, decide, wants_challenge
from services.validator.history import gather
from services.validator.microsoft.calls import Microsoft
from services.validator.request_context import RequestContext, rejected
from services.validator.settings import Settings
from services.validator.template import lifetime
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import report_forgery
from shared.ca.chains import ChainBook
from shared.log.envelope import Stored, UnreadableEventError, authenticate_as, decode
from shared.log.events.commands import RetryOrdered
from shared.log.events.enrollment import EnrollmentHeld, EnrollmentRejected, EnrollmentRequested
from shared.log.reasons import Reason
from shared.log.streams import OPS
from shared.log.subjects import EnrollmentId, parse_prefix, retry_command
from shared.runtime.live import Live
from shared.runtime.process import now
from shared.runtime.worker import DeferredError, NotServedError
from shared.scep.algorithms import AlgorithmPolicy
from shared.x509.name_constraints import name_constraints
from shared.x509.name_templates import Claims


@dataclass
class Evaluator:
    """Opens requests and decides on them; a redelivery finds what an earlier delivery appended.

    `connections` are those to tenants of Intune. `clock` returns Unix seconds.
    """

    bus: Bus
    live: Live[Settings]
    chains: ChainBook
    connections: Mapping[str, Microsoft] = field(default_factory=dict)
    clock: Callable[[], float] = now
    _ready: dict[str, tuple[Access, Mapping[str, Verifier]]] = field(default_factory=dict)
    _waiting: dict[str, dict[str, tuple[str, float]]] = field(default_factory=dict)

    async def open(
        self, enrollment: EnrollmentId, stored: Stored
    ) -> RequestContext | EnrollmentRejected:
        """Decrypt a request, or return the rejection if that is not possible.

        Raises `NotServedError` for a profile that is left out, and `BusUnavailableError` until the
        CA chain has been read.
        """
        settings = self.live.current
        try:
            event = decode(stored.payload, stored.headers)
        except UnreadableEventError as error:
            return rejected(stored, Reason.BAD_MESSAGE, str(error))
        _check_served(settings, enrollment.profile)
        policy = settings.policies.get(enrollment.profile)
        if policy is None or not isinstance(event, EnrollmentRequested):
            return rejected(stored, Reason.NOT_A_PROFILE, "no such profile")
        chain = self.chains.get(policy.issuer, policy.ca_spki_sha256)
        if chain is None:
            raise BusUnavailableError("CA chain not available yet")
        rules = OpeningRules(
            AlgorithmPolicy(policy.legacy), chain.issued, self.chains.issued, policy.any_signer
        )
        if event.sealed_attempt is not None and not await self._is_ordered(enrollment):
            return rejected(stored, Reason.BAD_MESSAGE, "retried without an operator's command")
        opened = open_request(enrollment, event, settings.opening_keys, rules)
        if isinstance(opened, UndecryptableRequest):
            return rejected(stored, opened.reason, opened.detail)
        kinds = [each.kind for each in settings.access[enrollment.profile].enabled]
        opened = _with_configured_facts(opened, policy, kinds)
        return RequestContext(enrollment, stored, opened, policy, chain)

    async def was_deferred(self, enrollment: EnrollmentId) -> bool:
        """Return whether an attempt was ever deferred: then many deliveries prove no failure."""
        settings = self.live.current
        records = Records(self.bus, settings.signer, settings.validators, settings.issuers)
        return await records.deferred(enrollment)

    def check_served(self, profile: str) -> None:
        """Raise `NotServedError` for a profile that this replica leaves out."""
        _check_served(self.live.current, profile)

    async def _is_ordered(self, enrollment: EnrollmentId) -> bool:
        """Return whether an operator ordered this very attempt; a gateway's claim is not enough."""
        stored = await self.bus.get_last_or_leader(OPS, retry_command(enrollment))
        if stored is None:
            return False
        try:
            order = authenticate_as(RetryOrdered, stored, self.live.current.operators)
            before = parse_prefix(order.enrollment)
        except (UnreadableEventError, ValueError) as error:
            report_forgery("command", stored.subject, error)
            return False
        return before.at(order.attempt) == enrollment

    async def decide(
        self, context: RequestContext, decided_at: int, held: EnrollmentHeld | None = None
    ) -> Decision:
        """Run the gates, then the verifier if one must run; `decided_at` is in Unix seconds.

        After a hold (`held`) the gates run again, because the certificate may have changed. The
        challenge is not verified again: it was accepted when the device asked, and its use is on
        record.
        """
        history = await gather(
            self.bus, context.policy.issuer, context.opened, self.live.current.issuers
        )
        profile = context.enrollment.profile
        policy_input = PolicyInput(
            context.opened,
            history,
            profile,
            context.policy,
            context.asked_at,
            decided_at,
            lifetime(context.chain.ca),
            name_constraints(context.chain.der),
            self.live.current.blocked_keys,
        )
        decision = decide(policy_input)
        if decision.refusal is not None:
            return decision
        if held is not None:
            asked = {gate.gate for gate in decision.gates} | GATES
            before = tuple(gate for gate in held.gates if gate.gate not in asked)
            decision = replace(decision, gates=decision.gates + before, claim=held.claim)
            return assign_again(policy_input, decision, held.assigned)
        if wants_challenge(policy_input):
            return await self._assigned(context, policy_input, decision)
        if context.policy.sid_extension:  # which nobody looked up
            return assign(policy_input, decision, {})
        return decision

    async def _assigned(
        self, context: RequestContext, policy_input: PolicyInput, decision: Decision
    ) -> Decision:
        """Run the verifier, then build the names that its claims decide.

        The verifier admits any use of a challenge by a key that already has a certificate. If the
        names show that this certificate is not the answer, it runs again without that.
        """
        verified, claims = await self._verified(context, policy_input, decision)
        if verified.refusal is not None or not context.policy.assigns:
            return verified
        policy_input = replace(policy_input, history=verified.history)
        assigned = assign(policy_input, verified, claims)
        if assigned.refusal is not None or assigned.existing == verified.existing:
            return assigned
        decision = replace(decide(policy_input), existing="")
        result = await self._verify(context, decision)
        verified = _with(decision, result)
        return verified if verified.refusal else assign(policy_input, verified, result.claims)

    async def _verified(
        self, context: RequestContext, policy_input: PolicyInput, decision: Decision
    ) -> tuple[Decision, Claims]:
        """Run the verifier; return the decision with its result, and what it proved.

        If it reports that the challenge was used before, the resulting certificate may have been
        recorded after the key's certificates were read. They are read again, and such a certificate
        is the answer.
        """
        verified = await self._verify(context, decision)
        refusal = verified.refusal
        if refusal is not None and refusal.reason is Reason.REPLAY and not decision.existing:
            issuer, issuers = context.policy.issuer, self.live.current.issuers
            history = await gather(self.bus, issuer, context.opened, issuers)
            again = decide(replace(policy_input, history=history))
            if again.refusal is not None or again.existing:
                decision = again
                verified = (
                    await self._verify(context, again) if again.existing else ChallengeResult(())
                )
        return _with(decision, verified), verified.claims

    async def _verify(self, context: RequestContext, decision: Decision) -> ChallengeResult:
        kind = context.opened.facts.challenge
        verifier = self._verifiers(context.enrollment.profile).get(kind)
        if verifier is None and kind != NONE:
            raise DeferredError(kind)  # a reload disabled the kind after the request was read
        if verifier is None:
            detail = "the profile does not accept challenges"
            return refused("challenge", Reason.CHALLENGE_WRONG, detail)
        try:
            return await verifier.verify(_asked(context, decision))
        except TooManyWaitError:
            detail = "too many pending or failed requests for this CSR: try again later"
            return refused("replay", Reason.RATE_LIMITED, detail)

    def _verifiers(self, profile: str) -> Mapping[str, Verifier]:
        """Return the profile's verifiers, rebuilt when its configuration changes."""
        settings = self.live.current
        access = settings.access[profile]
        ready = self._ready.get(profile)
        if ready is None or ready[0] is not access:
            trusted, waiting = settings.validators, self._waiting.setdefault(profile, {})
            records = Records(self.bus, settings.signer, trusted, settings.issuers, waiting)
            context = VerifierContext(
                profile, records, settings.operators, self.connections, self.clock
            )
            ready = access, verifiers(access, context)
            self._ready[profile] = ready
        return ready[1]


def _with(decision: Decision, verified: ChallengeResult) -> Decision:
    """Return a decision with a verifier's result."""
    return replace(
        decision,
        gates=decision.gates + verified.gates,
        refusal=decision.refusal or verified.refusal,
        claim=verified.claim,
    )


def _check_served(settings: Settings, profile: str) -> None:
    if profile in settings.left_out:
        raise NotServedError(profile)


def _with_configured_facts(
    opened: DecryptedRequest, policy: Policy, kinds: Sequence[VerifierKind]
) -> DecryptedRequest:
    """Add the facts that only the configuration knows: the fleet, and the challenge's kind."""
    challenge = opened.csr.challenge
    kind = route(challenge, kinds) if challenge is not None else NONE
    facts = msgspec.structs.replace(opened.facts, challenge=kind, fleet=policy.fleet)
    return replace(opened, facts=facts)


def _asked(context: RequestContext, decision: Decision) -> ChallengeRequest:
    opened = context.opened
    if context.policy.builds_names:
        opened = with_kept_names(opened)
    return ChallengeRequest(
        enrollment=context.enrollment,
        request_sha256=context.stored.sha256(),
        transaction_id=context.opened.transaction_id,
        opened=opened,
        asked_at=context.asked_at,
        existing=decision.existing,
    )
