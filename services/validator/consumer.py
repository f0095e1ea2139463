"""request -> open -> facts -> gates -> verdict: the validator's one path."""

from dataclasses import dataclass

import structlog

from services.validator.facts import NotOpened, Opened, open_request
from services.validator.gates import Policy, decide
from services.validator.settings import Settings
from services.validator.template import build_template
from shared.bus.core import AppendConflictError, Bus, BusUnavailableError
from shared.bus.topology import enroll_stream, gateway_hints
from shared.chains import ChainBook
from shared.events import (
    SUBJECT,
    EnrollmentApproved,
    EnrollmentRejected,
    EnrollmentRequested,
    Message,
    Stored,
    UnreadableEventError,
    authenticate,
    decode,
    sign,
)
from shared.reasons import FAIL_INFO, Reason
from shared.scep.algorithms import AlgorithmPolicy
from shared.subjects import EnrollmentId, Stage, parse_subject
from shared.telemetry import SECURITY_EVENTS, VERDICTS

_log = structlog.get_logger()
_NANOSECONDS = 1_000_000_000

Verdict = EnrollmentApproved | EnrollmentRejected


@dataclass
class RequestConsumer:
    """Writes exactly one verdict for every request event."""

    bus: Bus
    settings: Settings
    chains: ChainBook

    async def handle(self, stored: Stored) -> None:
        """Judge a request and record the verdict."""
        enrollment = _enrollment(stored)
        if enrollment is not None:
            await self._record(enrollment, stored, self._judge(enrollment, stored))

    async def give_up(self, stored: Stored) -> None:
        """End a request that kills its worker."""
        enrollment = _enrollment(stored)
        if enrollment is not None:
            verdict = _rejected(stored, Reason.POISON, "the request could not be processed")
            await self._record(enrollment, stored, verdict)

    def _judge(self, enrollment: EnrollmentId, stored: Stored) -> Verdict:
        try:
            event = decode(stored.payload, stored.headers)
        except UnreadableEventError as error:
            return _rejected(stored, Reason.BAD_MESSAGE, str(error))
        policy = self.settings.policies.get(enrollment.profile)
        if policy is None or not isinstance(event, EnrollmentRequested):
            return _rejected(stored, Reason.NOT_A_PROFILE, "no such profile here")
        keys = self.settings.opening_keys
        opened = open_request(enrollment, event, keys, AlgorithmPolicy(policy.legacy))
        if isinstance(opened, NotOpened):
            return _rejected(stored, opened.reason, opened.detail)
        return self._decide(stored, event, opened, policy)

    def _decide(
        self, stored: Stored, event: EnrollmentRequested, opened: Opened, policy: Policy
    ) -> Verdict:
        decision = decide(opened.csr, opened.facts, policy)
        if decision.refusal is not None:
            return EnrollmentRejected(
                request_sha256=stored.sha256(),
                reason=decision.refusal.reason,
                fail_info=FAIL_INFO[decision.refusal.reason],
                detail=decision.refusal.detail,
                facts=opened.facts,
                gates=decision.gates,
            )
        chain = self.chains.get(policy.issuer, policy.ca_spki_sha256)
        if chain is None:
            raise BusUnavailableError("the CA chain was not read yet")
        # The time of every decision is the log's, on redelivery too: the verdict stays the same.
        requested_at = stored.time // _NANOSECONDS
        return EnrollmentApproved(
            request_sha256=stored.sha256(),
            gateway=event.gateway,
            facts=opened.facts,
            gates=decision.gates,
            template=build_template(opened.csr, policy, chain.ca, requested_at),
            valid_until=requested_at + policy.verdict_ttl,
        )

    async def _record(self, enrollment: EnrollmentId, stored: Stored, verdict: Verdict) -> None:
        """Append the verdict; where one stands already, go on from that one."""
        subject = enrollment.subject(Stage.VERDICT)
        message = sign(verdict, subject, stored.sha256(), self.settings.signer)
        try:
            await self.bus.append(subject, message)
            reason = verdict.reason if isinstance(verdict, EnrollmentRejected) else "approved"
            VERDICTS.labels(enrollment.profile, reason).inc()
        except AppendConflictError:
            found = await self._stored_verdict(enrollment, stored)
            if found is None:
                return
            verdict, message = found
        if isinstance(verdict, EnrollmentRejected):
            await self._hint(stored, subject, message)

    async def _stored_verdict(
        self, enrollment: EnrollmentId, request: Stored
    ) -> tuple[Verdict, Message] | None:
        """The verdict that was there first, if it is one of ours."""
        subject = enrollment.subject(Stage.VERDICT)
        stored = await self.bus.get_last(enroll_stream(enrollment.shard), subject)
        if stored is None:
            raise BusUnavailableError("a conflicting verdict cannot be read yet")
        trusted = {self.settings.signer.id: self.settings.signer.key.public_key()}
        try:
            event = authenticate(stored, trusted, Stage.VERDICT, request.sha256())
        except UnreadableEventError as error:
            SECURITY_EVENTS.labels(Stage.VERDICT).inc()
            _log.error("verdict_not_authentic", subject=subject, detail=str(error))
            return None
        if not isinstance(event, EnrollmentApproved | EnrollmentRejected):
            return None
        return event, Message(stored.payload, dict(stored.headers))

    async def _hint(self, request: Stored, subject: str, message: Message) -> None:
        """Tell the gateway that waits; a lost hint costs it a second."""
        try:
            event = decode(request.payload, request.headers)
        except UnreadableEventError:
            return
        if isinstance(event, EnrollmentRequested):
            hint = Message(message.payload, message.headers | {SUBJECT: subject})
            await self.bus.hint(gateway_hints(event.gateway), hint)


def _enrollment(stored: Stored) -> EnrollmentId | None:
    """What the request is about; None for a subject that no gateway of ours writes."""
    try:
        return parse_subject(stored.subject)[0]
    except ValueError:
        SECURITY_EVENTS.labels(Stage.REQUEST).inc()
        _log.error("subject_not_ours", subject=stored.subject)
        return None


def _rejected(stored: Stored, reason: Reason, detail: str) -> EnrollmentRejected:
    return EnrollmentRejected(
        request_sha256=stored.sha256(), reason=reason, fail_info=FAIL_INFO[reason], detail=detail
    )
