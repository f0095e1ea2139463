"""request -> open -> facts -> gates -> verdict, or a hold until an operator decides."""

from dataclasses import dataclass

import structlog

from services.validator.facts import History, NotOpened, Opened, open_request
from services.validator.gates import Decision, Policy, Question, decide
from services.validator.history import gather
from services.validator.settings import Settings
from services.validator.template import build_template
from services.validator.verdicts import Recorder, Verdict
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.topology import enroll_stream
from shared.chains import Chain, ChainBook
from shared.events import (
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    EnrollmentRequested,
    HoldDecided,
    RenewedCertificate,
)
from shared.reasons import FAIL_INFO, Reason
from shared.scep.algorithms import AlgorithmPolicy
from shared.stored import Stored, UnreadableEventError, authenticate, decode
from shared.subjects import EnrollmentId, Stage, parse_subject
from shared.telemetry import SECURITY_EVENTS

_log = structlog.get_logger()
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Case:
    """A request event, what was found in it, and under which policy and CA it is judged."""

    enrollment: EnrollmentId
    stored: Stored
    opened: Opened
    policy: Policy
    chain: Chain

    @property
    def asked_at(self) -> int:
        """The log's time of the request (Unix s): the same on redelivery and after a hold."""
        return self.stored.time // _NANOSECONDS


@dataclass
class RequestConsumer:
    """Writes exactly one verdict for every request event, after a hold where one is wanted."""

    bus: Bus
    settings: Settings
    chains: ChainBook

    @property
    def _recorder(self) -> Recorder:
        return Recorder(self.bus, self.settings.signer, self.settings.validators)

    async def handle(self, stored: Stored) -> None:
        """Judge a request, or act on an operator's decision about a held one."""
        parsed = _parsed(stored)
        if parsed is None:
            return
        enrollment, stage = parsed
        if stage is Stage.DECISION:
            await self._on_decision(enrollment, stored)
            return
        result = await self._judge(enrollment, stored)
        if isinstance(result, EnrollmentHeld):
            await self._recorder.hold(enrollment, stored, result)
        else:
            await self._recorder.verdict(enrollment, stored, result)

    async def give_up(self, stored: Stored) -> None:
        """End a request that kills its worker, or whose decision does."""
        parsed = _parsed(stored)
        if parsed is None:
            return
        enrollment, stage = parsed
        request = stored if stage is Stage.REQUEST else await self._request(enrollment)
        if request is not None:
            verdict = rejected(request, Reason.POISON, "the request could not be processed")
            await self._recorder.verdict(enrollment, request, verdict)

    async def _judge(self, enrollment: EnrollmentId, stored: Stored) -> Verdict | EnrollmentHeld:
        case = await self._case(enrollment, stored)
        if isinstance(case, EnrollmentRejected):
            return case
        decision = await self._decide(case, case.asked_at)
        if decision.refusal is not None:
            return _refused(case, decision)
        if case.policy.manual and not decision.existing:
            return EnrollmentHeld(
                request_sha256=stored.sha256(), facts=case.opened.facts, gates=decision.gates
            )
        return _approved(case, decision, case.asked_at)

    async def _case(self, enrollment: EnrollmentId, stored: Stored) -> Case | EnrollmentRejected:
        settings = self.settings
        try:
            event = decode(stored.payload, stored.headers)
        except UnreadableEventError as error:
            return rejected(stored, Reason.BAD_MESSAGE, str(error))
        policy = settings.policies.get(enrollment.profile)
        if policy is None or not isinstance(event, EnrollmentRequested):
            return rejected(stored, Reason.NOT_A_PROFILE, "no such profile here")
        chain = self.chains.get(policy.issuer, policy.ca_spki_sha256)
        if chain is None:
            raise BusUnavailableError("the CA chain was not read yet")
        algorithms = AlgorithmPolicy(policy.legacy)
        opened = open_request(enrollment, event, settings.opening_keys, algorithms, chain.issued)
        if isinstance(opened, NotOpened):
            return rejected(stored, opened.reason, opened.detail)
        return Case(enrollment, stored, opened, policy, chain)

    async def _decide(self, case: Case, decided_at: int) -> Decision:
        issuers = self.settings.issuers
        history = await gather(self.bus, case.policy.issuer, case.opened, issuers)
        profile = case.enrollment.profile
        question = Question(case.opened, history, profile, case.policy, case.asked_at, decided_at)
        return decide(question)

    async def _on_decision(self, enrollment: EnrollmentId, stored: Stored) -> None:
        """The operator's word becomes the verdict, if it is about a hold of ours."""
        request = await self._request(enrollment)
        held = await self.bus.get_last(
            enroll_stream(enrollment.shard), enrollment.subject(Stage.HOLD)
        )
        if request is None or held is None:
            _not_authentic(Stage.DECISION, stored, "it is about no held request")
            return
        settings, sha256 = self.settings, request.sha256()
        try:
            authenticate(held, settings.validators, Stage.HOLD, sha256)
            decided = authenticate(stored, settings.operators, Stage.DECISION, sha256)
        except UnreadableEventError as error:
            _not_authentic(Stage.DECISION, stored, str(error))
            return
        if isinstance(decided, HoldDecided):
            verdict = await self._after_hold(enrollment, request, decided, stored)
            await self._recorder.verdict(enrollment, request, verdict)

    async def _after_hold(
        self, enrollment: EnrollmentId, request: Stored, decided: HoldDecided, stored: Stored
    ) -> Verdict:
        """The gates once more: keys and certificates may have been revoked meanwhile."""
        case = await self._case(enrollment, request)
        if isinstance(case, EnrollmentRejected):
            return case
        if not decided.approved:
            return rejected(request, Reason.DENIED, decided.note or "an operator denied it")
        decided_at = stored.time // _NANOSECONDS
        decision = await self._decide(case, decided_at)
        if decision.refusal is not None:
            return _refused(case, decision)
        return _approved(case, decision, decided_at)

    async def _request(self, enrollment: EnrollmentId) -> Stored | None:
        stream = enroll_stream(enrollment.shard)
        return await self.bus.get_last(stream, enrollment.subject(Stage.REQUEST))


def _approved(case: Case, decision: Decision, decided_at: int) -> EnrollmentApproved:
    """The yes; lifetimes begin when it was decided, which is on the log too."""
    event = decode(case.stored.payload, case.stored.headers)
    gateway = event.gateway if isinstance(event, EnrollmentRequested) else ""
    return EnrollmentApproved(
        request_sha256=case.stored.sha256(),
        gateway=gateway,
        facts=case.opened.facts,
        gates=decision.gates,
        template=build_template(case.opened.csr, case.policy, case.chain.ca, decided_at),
        valid_until=decided_at + case.policy.verdict_ttl,
        renews=_renewed(case.opened, decision.history),
        existing=decision.existing,
    )


def _renewed(opened: Opened, history: History) -> RenewedCertificate | None:
    """What is renewed, and how often its key was already."""
    known = history.renewed
    if known is None:
        return None
    uses = known.record.key_uses + 1 if opened.key_reused else 0
    return RenewedCertificate(
        serial=known.record.serial, not_after=known.record.not_after, key_uses=uses
    )


def _refused(case: Case, decision: Decision) -> EnrollmentRejected:
    assert decision.refusal is not None
    return EnrollmentRejected(
        request_sha256=case.stored.sha256(),
        reason=decision.refusal.reason,
        fail_info=FAIL_INFO[decision.refusal.reason],
        detail=decision.refusal.detail,
        facts=case.opened.facts,
        gates=decision.gates,
    )


def rejected(stored: Stored, reason: Reason, detail: str) -> EnrollmentRejected:
    """The no to a request that never came to the gates."""
    return EnrollmentRejected(
        request_sha256=stored.sha256(), reason=reason, fail_info=FAIL_INFO[reason], detail=detail
    )


def _parsed(stored: Stored) -> tuple[EnrollmentId, Stage] | None:
    """What the event is about; None for a subject that no service of ours writes."""
    try:
        return parse_subject(stored.subject)
    except ValueError:
        _not_authentic(Stage.REQUEST, stored, "no enrollment's subject")
        return None


def _not_authentic(stage: Stage, stored: Stored, detail: str) -> None:
    SECURITY_EVENTS.labels(stage).inc()
    _log.error("event_not_authentic", subject=stored.subject, detail=detail)
