"""Tells an operator's service of every certificate issued and every enrollment that failed."""

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
    CertificateIssued,
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

Ended = CertificateIssued | IssuanceFailed | EnrollmentRejected


class NotificationFailedError(Exception):
    """Raised where the service did not take a notification: it is told again later."""


@dataclass(frozen=True)
class Notifier:
    """Each end is told at least once; `id` and `event` tell a repetition."""

    evaluator: Evaluator
    clock: Callable[[], float]

    async def handle(self, stored: Stored) -> None:
        """Tell of an end; the worker tries again, ever more rarely, when that fails."""
        enrollment, stage = parse_subject(stored.subject)
        access = self.evaluator.live.current.access.get(enrollment.profile)
        event = self._ended(stored, stage)
        if access is None or access.notify is None or event is None:
            return
        body = await self._notification(enrollment, event)
        status, _ = await access.notify.post(body, int(self.clock()))
        if status not in _SUCCESSFUL:
            raise NotificationFailedError(f"HTTP {status}")

    async def give_up(self, stored: Stored) -> None:
        """It stays untold; the dead letter says so."""
        _log.error("notification_failed", about=stored.subject)

    def _ended(self, stored: Stored, stage: Stage) -> Ended | None:
        """The terminal event, if one of us wrote it."""
        settings = self.evaluator.live.current
        trusted = settings.issuers if stage is Stage.OUTCOME else settings.validators
        event = read_stage(stored, trusted, stage)
        if event is None:
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


class Telling:
    """Works off the ends of enrollments, where a profile of the first settings wants it."""

    def __init__(self, evaluator: Evaluator, clock: Callable[[], float]) -> None:
        """Begin with no shard."""
        access = evaluator.live.current.access.values()
        self._wanted = any(each.notify is not None for each in access)
        self._notifier = Notifier(evaluator, clock)
        self._workers = Workers(evaluator.bus, Role.VALIDATOR)

    async def bring(self, shards: Sequence[str]) -> None:
        """Tell of what ends on these shards."""
        tell = self._notifier
        jobs = [Job(enroll_stream(s), tell.handle, tell.give_up, NOTIFIER) for s in shards]
        await self._workers.bring(jobs if self._wanted else [], _CONCURRENCY)

    async def stop(self) -> None:
        """Tell no more."""
        await self._workers.stop()


def _described(facts: Facts | None) -> dict[str, Any] | None:
    return described(facts) if facts is not None else None


def _result(event: Ended) -> dict[str, Any]:
    if isinstance(event, CertificateIssued):
        return {"issuer": event.issuer, "serial": event.serial, "not_after": event.not_after}
    return {"reason": event.reason.value, "detail": event.detail}
