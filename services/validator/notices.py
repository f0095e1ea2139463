"""Notices to Intune at best effort: of failures, and of certificates that devices have already.

The log and the position of the durable consumer are their outbox: a notice that fails is deferred
twice, and after a kill it may be sent again.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from services.validator.challenges.intune import GATE, VALIDATED
from services.validator.challenges.records import Records
from services.validator.challenges.verifier import INTUNE, connection_of
from services.validator.evaluate import Evaluator
from services.validator.microsoft.calls import Microsoft
from services.validator.microsoft.model import (
    Answer,
    FailureNotice,
    MicrosoftUnavailableError,
    SuccessNotice,
)
from services.validator.request_context import RequestContext
from services.validator.settings import Settings
from shared.bus.core import Bus
from shared.log.envelope import Stored
from shared.log.events.enrollment import CertificateIssued, EnrollmentRejected
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError
from shared.scep.certificate import read_certificate
from shared.x509.dn import read_dn
from shared.x509.names import name_text

_log = structlog.get_logger()
_E_FAIL: Final = -2147467259
# After how many seconds a failed notice at best effort is sent again, by its age in seconds.
_AGAIN: Final = ((30.0, 60.0), (180.0, 300.0))


@dataclass(frozen=True)
class Notices:
    """Sends notices; `clock` returns the log's time in Unix seconds, `places` are by connection."""

    evaluator: Evaluator
    connections: Mapping[str, Microsoft]
    clock: Callable[[], float]
    places: dict[str, Places]

    @property
    def _bus(self) -> Bus:
        return self.evaluator.bus

    @property
    def _settings(self) -> Settings:
        return self.evaluator.live.current

    async def issued(
        self, enrollment: EnrollmentId, stored: Stored, event: CertificateIssued
    ) -> None:
        """Notify Intune of a certificate that its device has already; `stored` is its outcome."""
        name = event.confirmed_by
        context, microsoft = await self.context(enrollment), self.connections.get(name)
        if context is not None and microsoft is not None:
            notice = success_notice(context, event)
            await self._best_effort(stored, name, partial(microsoft.tell_success, notice))

    async def rejected(
        self, enrollment: EnrollmentId, stored: Stored, verdict: EnrollmentRejected
    ) -> None:
        """Notify Intune of a rejection, if it had accepted the request before."""
        if await self._validated(enrollment, verdict):
            policy = self._settings.policies.get(enrollment.profile)
            now = policy.connection if policy is not None else ""
            asked = connection_of(verdict.claim) or now  # a denial does not say which was asked
            await self.failed(enrollment, stored, verdict.detail, asked)

    async def failed(
        self, enrollment: EnrollmentId, stored: Stored, detail: str, connection: str
    ) -> None:
        """Notify Intune that a request that it had validated got no certificate."""
        microsoft = self.connections.get(connection)
        context = await self.context(enrollment) if microsoft is not None else None
        if microsoft is None or context is None:
            return
        notice = FailureNotice(
            context.opened.transaction_id, context.opened.csr.der, _E_FAIL, detail or "refused"
        )
        await self._best_effort(stored, connection, partial(microsoft.tell_failure, notice))

    async def _validated(self, enrollment: EnrollmentId, verdict: EnrollmentRejected) -> bool:
        """Return whether Intune had accepted a request that was rejected afterwards.

        An operator's denial and the rejection of a poisoned request list no gates.
        """
        if verdict.facts is not None:
            by_intune = verdict.facts.challenge == INTUNE
            return by_intune and any(g.gate == GATE and g.passed for g in verdict.gates)
        settings = self._settings
        policy = settings.policies.get(enrollment.profile)
        if policy is None or not policy.connection:
            return False
        records = Records(self._bus, settings.signer, settings.validators, settings.issuers)
        return await records.has_mark(VALIDATED, enrollment.prefix())

    @asynccontextmanager
    async def place(self, connection: str, about: str) -> AsyncIterator[None]:
        """Hold one of a connection's places: a slow tenant must not hold up the others."""
        with self.places.setdefault(connection, Places()).taken() as free:
            if not free:
                raise DeferredError(about)
            yield

    async def context(self, enrollment: EnrollmentId) -> RequestContext | None:
        """Return the opened request, None if it cannot be opened any more."""
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        request = await self._bus.get_last_or_leader(stream, place)
        if request is None:
            return None
        context = await self.evaluator.open(enrollment, request)
        return context if isinstance(context, RequestContext) else None

    async def _best_effort(
        self, stored: Stored, connection: str, call: Callable[[], Awaitable[Answer]]
    ) -> None:
        """Make a call; if Microsoft does not answer, have it repeated twice, later."""
        try:
            async with self.place(connection, stored.subject):
                answer = await call()
        except MicrosoftUnavailableError as error:
            age = self.clock() - stored.seconds
            for limit, wait in _AGAIN:
                if age < limit:
                    raise DeferredError(stored.subject, wait) from error
            _log.warning("notice_given_up", about=stored.subject, detail=str(error))
            return
        if not answer.accepted:
            _log.warning("notice_refused", about=stored.subject, detail=said(answer))


def success_notice(context: RequestContext, event: CertificateIssued) -> SuccessNotice:
    """Return the notice of a certificate: what Intune later names it by. Pure."""
    certificate = read_certificate(event.certificate)
    issuer = name_text(certificate.issuer)
    names = (value for kind, value in read_dn(issuer) if kind == "CN")
    return SuccessNotice(
        transaction_id=context.opened.transaction_id,
        csr=context.opened.csr.der,
        thumbprint=hashlib.sha1(event.certificate).hexdigest().upper(),  # noqa: S324 - Intune's own
        serial=f"{int.from_bytes(certificate.serial, 'big'):X}",
        not_after=event.not_after,
        issuing_ca=issuer,
        certificate_authority=next(names, issuer),
    )


def said(answer: Answer) -> str:
    """Return an answer for a detail: its code, and its name in Microsoft's logs."""
    return f"{answer.code or 'no code'}, activity {answer.activity_id}"
