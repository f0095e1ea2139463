"""Notifies an operator's service of every issued certificate and every failed enrollment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from services.validator.challenges.webhook import described
from services.validator.evaluate import Evaluator
from shared.bus.log import read_stage
from shared.bus.topology import NOTIFIER
from shared.log.envelope import Stored, UnreadableEventError, decode
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
    EnrollmentApproved,
    EnrollmentRejected,
    EnrollmentRequested,
    Facts,
    IssuanceFailed,
)
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, parse_subject
from shared.runtime.worker import Job, Workers

_log = structlog.get_logger()
_CONCURRENCY = 16
_SUCCESSFUL = range(200, 300)

Ended = CertificateIssued | IssuanceFailed | EnrollmentRejected | ConfirmationFailed


class NotificationFailedError(Exception):
    """Raised if the service did not accept a notification, which is then sent again later."""


@dataclass(frozen=True)
class Notifier:
    """Sends every result at least once; `id` and `event` identify a repetition."""

    evaluator: Evaluator
    clock: Callable[[], float]

    async def handle(self, stored: Stored) -> None:
        """Send a result; if that fails, the worker retries with growing pauses."""
        enrollment, stage = parse_subject(stored.subject)
        access = self.evaluator.live.current.access.get(enrollment.profile)
        event = await self._ended(enrollment, stored, stage)
        if access is None or access.notify is None or event is None:
            return
        body = await self._notification(enrollment, event)
        status, _ = await access.notify.post(body, int(self.clock()))
        if status not in _SUCCESSFUL:
            raise NotificationFailedError(f"HTTP {status}")

    async def give_up(self, stored: Stored) -> None:
        """Log that the notification was not sent; the dead letter records it."""
        _log.error("notification_failed", about=stored.subject)

    async def _ended(self, enrollment: EnrollmentId, stored: Stored, stage: Stage) -> Ended | None:
        """Return the terminal event if a trusted service signed it, else None.

        A certificate that is withheld ends its enrollment only when it is confirmed.
        """
        settings = self.evaluator.live.current
        trusted = settings.issuers if stage is Stage.OUTCOME else settings.validators
        event = read_stage(stored, trusted, stage)
        if isinstance(event, CertificateConfirmed):
            stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
            outcome = await self.evaluator.bus.get_last_or_leader(stream, place)
            event = read_stage(outcome, settings.issuers, Stage.OUTCOME) if outcome else None
        elif isinstance(event, CertificateIssued) and event.withheld:
            return None
        return event if isinstance(event, Ended) else None

    async def _notification(self, enrollment: EnrollmentId, event: Ended) -> dict[str, Any]:
        facts = event.facts if isinstance(event, EnrollmentRejected) else None
        return {
            "event": "issued" if isinstance(event, CertificateIssued) else "failed",
            "id": enrollment.prefix(),
            "profile": enrollment.profile,
            "transaction_id": await self._transaction_id(enrollment),
            "csr": _described(facts or await self._facts(enrollment)),
            **_result(event),
        }

    async def _transaction_id(self, enrollment: EnrollmentId) -> str:
        event = await self._event(enrollment, Stage.REQUEST)
        return event.transaction_id if isinstance(event, EnrollmentRequested) else ""

    async def _facts(self, enrollment: EnrollmentId) -> Facts | None:
        event = await self._event(enrollment, Stage.VERDICT)
        return event.facts if isinstance(event, EnrollmentApproved) else None

    async def _event(self, enrollment: EnrollmentId, stage: Stage) -> object:
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(stage)
        stored = await self.evaluator.bus.get_last_or_leader(stream, place)
        try:
            return decode(stored.payload, stored.headers) if stored is not None else None
        except UnreadableEventError:
            return None


class NotificationWorkers:
    """Runs the notifiers while any profile wants notifications."""

    def __init__(self, evaluator: Evaluator, clock: Callable[[], float]) -> None:
        """Start without shards; `clock` returns Unix seconds."""
        self._evaluator, self._notifier = evaluator, Notifier(evaluator, clock)
        self._workers = Workers(evaluator.bus, Role.VALIDATOR)

    async def reconcile(self, shards: Sequence[str]) -> None:
        """Send the results on these shards and on no others."""
        tell = self._notifier
        jobs = [Job(enroll_stream(s), tell.handle, tell.give_up, NOTIFIER) for s in shards]
        access = self._evaluator.live.current.access.values()
        wanted = any(each.notify is not None for each in access)
        await self._workers.reconcile(jobs if wanted else [], _CONCURRENCY)

    async def stop(self) -> None:
        """Stop sending notifications."""
        await self._workers.stop()


def _described(facts: Facts | None) -> dict[str, Any] | None:
    return described(facts) if facts is not None else None


def _result(event: Ended) -> dict[str, Any]:
    if isinstance(event, CertificateIssued):
        return {"issuer": event.issuer, "serial": event.serial, "not_after": event.not_after}
    return {"reason": event.reason.value, "detail": event.detail}
