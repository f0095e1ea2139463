"""Handles request events: decrypt, run the gates, append a verdict, or a hold for an operator."""

from dataclasses import dataclass, field

import msgspec
import structlog

from services.validator.assigned import certified_facts, held_names
from services.validator.evaluate import Evaluator
from services.validator.gates import Decision
from services.validator.request_context import RequestContext, approved, refused, rejected
from services.validator.trials import begin_trial
from services.validator.verdicts import Recorder, Verdict
from shared.bus.core import BusUnavailableError
from shared.bus.log import report_forgery
from shared.bus.series import SeriesTooLongError
from shared.log.envelope import Stored, UnreadableEventError, authenticate
from shared.log.events.enrollment import (
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    HoldDecided,
)
from shared.log.reasons import Reason
from shared.log.seal import seal, sealing_key_id
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, parse_subject
from shared.observe.logs import log_failure
from shared.runtime.worker import DeferredError, NotServedError

_log = structlog.get_logger()
_MOST_TRIED = 65_536  # more than the server delivers without an acknowledgement


@dataclass
class RequestConsumer:
    """Appends exactly one verdict per request event, after a hold if the profile wants one."""

    evaluator: Evaluator
    _tried: set[str] = field(default_factory=set, init=False)

    @property
    def _recorder(self) -> Recorder:
        evaluator = self.evaluator
        settings = evaluator.live.current
        return Recorder(evaluator.bus, settings.signer, settings.validators, settings.policies)

    async def handle(self, stored: Stored) -> None:
        """Evaluate a request, or act on an operator's decision about a held one."""
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
        """Reject a request that kills its worker, or whose decision does, unless it only waited."""
        parsed = _parsed(stored)
        if parsed is None:
            return
        enrollment, stage = parsed
        self.evaluator.check_served(enrollment.profile)
        try:
            if await self.evaluator.was_deferred(enrollment) and await self._handled(
                enrollment, stored
            ):
                return
        except SeriesTooLongError as error:  # forged marks hide whether it waits
            log_failure("marks_unreadable", error, about=stored.subject)
        request = stored if stage is Stage.REQUEST else await self._request(enrollment)
        if request is not None:
            verdict = rejected(request, Reason.POISON, "the request could not be processed")
            await self._recorder.verdict(enrollment, request, verdict)

    async def _handled(self, enrollment: EnrollmentId, stored: Stored) -> bool:
        """Handle a message that came so often because it waited; return False to give it up.

        That is if handling fails, or if so many processes tried it that it must have killed them.
        """
        if not await self._is_tried(enrollment, stored):
            return False
        try:
            await self.handle(stored)
        except (DeferredError, NotServedError, BusUnavailableError):
            raise
        except Exception as error:  # noqa: BLE001 - then it is given up like any other
            log_failure("message_failed", error, subject=stored.subject)
            return False
        return True

    async def _is_tried(self, enrollment: EnrollmentId, stored: Stored) -> bool:
        """Record this process's one trial of the message; return False if there were too many."""
        prefix, settings = enrollment.prefix(), self.evaluator.live.current
        if prefix in self._tried:
            return True
        if not await begin_trial(
            self.evaluator.bus, settings.signer, settings.validators, enrollment, stored
        ):
            _log.error("trials_exhausted", about=prefix)
            return False
        if len(self._tried) >= _MOST_TRIED:
            self._tried.clear()
        self._tried.add(prefix)
        return True

    async def _judge(self, enrollment: EnrollmentId, stored: Stored) -> Verdict | EnrollmentHeld:
        context = await self.evaluator.open(enrollment, stored)
        if isinstance(context, EnrollmentRejected):
            return context
        decision = await self.evaluator.decide(context, context.asked_at)
        if decision.refusal is not None:
            return refused(context, decision, decision.refusal)
        if context.policy.manual and not decision.existing:
            return EnrollmentHeld(
                request_sha256=stored.sha256(),
                facts=certified_facts(context.opened.facts, decision),
                gates=decision.gates,
                claim=decision.claim,
                assigned=held_names(context.policy, decision),
            )
        return self._approved(context, decision, context.asked_at)

    async def _on_decision(self, enrollment: EnrollmentId, stored: Stored) -> None:
        """Turn an operator's decision into the verdict, if a validator signed the hold."""
        request = await self._request(enrollment)
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.HOLD)
        found = await self.evaluator.bus.get_last_or_leader(stream, place)
        if request is None or found is None:
            report_forgery(Stage.DECISION, stored.subject, "no held request for this decision")
            return
        settings, sha256 = self.evaluator.live.current, request.sha256()
        try:
            held = authenticate(found, settings.validators, Stage.HOLD, sha256)
            decided = authenticate(stored, settings.operators, Stage.DECISION, sha256)
        except UnreadableEventError as error:
            report_forgery(Stage.DECISION, stored.subject, error)
            return
        if isinstance(held, EnrollmentHeld) and isinstance(decided, HoldDecided):
            decided_at = stored.seconds
            verdict = await self._after_hold(enrollment, request, held, decided, decided_at)
            await self._recorder.verdict(enrollment, request, verdict)

    async def _after_hold(
        self,
        enrollment: EnrollmentId,
        request: Stored,
        held: EnrollmentHeld,
        decided: HoldDecided,
        decided_at: int,
    ) -> Verdict:
        """Run the gates again: keys and certificates may have been revoked since the hold."""
        context = await self.evaluator.open(enrollment, request)
        if isinstance(context, EnrollmentRejected):
            return context
        if not decided.approved:
            return rejected(request, Reason.DENIED, decided.note or "denied by an operator")
        context = context.judged_by(held.facts.challenge)
        decision = await self.evaluator.decide(context, decided_at, held)
        if decision.refusal is not None:
            return refused(context, decision, decision.refusal)
        return self._approved(context, decision, decided_at)

    def _approved(
        self, context: RequestContext, decision: Decision, decided_at: int
    ) -> EnrollmentApproved:
        """Return the approval, with the CSR sealed for the issuers if an external CA needs it."""
        verdict = approved(context, decision, decided_at)
        recipient = self.evaluator.live.current.csr_recipient
        if recipient is None or not context.policy.external:
            return verdict
        subject = context.enrollment.subject(Stage.VERDICT)
        return msgspec.structs.replace(
            verdict,
            csr=seal(context.opened.csr.der, subject, recipient),
            csr_key=sealing_key_id(recipient),
        )

    async def _request(self, enrollment: EnrollmentId) -> Stored | None:
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        return await self.evaluator.bus.get_last_or_leader(stream, place)


def _parsed(stored: Stored) -> tuple[EnrollmentId, Stage] | None:
    """Return an event's enrollment and stage; None if no service writes such a subject."""
    try:
        return parse_subject(stored.subject)
    except ValueError:
        report_forgery(Stage.REQUEST, stored.subject, "not an enrollment's subject")
        return None
