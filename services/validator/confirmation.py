"""Notifies Intune of each result, and confirms certificates that devices get only then.

Theory of operation. A withheld certificate is given to its device once its enrollment has a
`CertificateConfirmed` event, and never after a `ConfirmationFailed`: the log takes one of them.
Before Intune is notified, a `NoticeBegun` record says so. If a validator dies between that and the
event, it is unknown whether Intune was notified. It is not notified again: the certificate stays
withheld and is revoked, and the device enrolls again. So Intune is notified exactly once of each
certificate that a device gets. A certificate that repeats an earlier enrollment's waits for that
one's confirmation, and Intune is not notified again.

Notices of failures, and of certificates that are not withheld, are sent at best effort: notices.py.
See docs/decisions/0051-a-certificate-is-withheld-until-it-is-confirmed.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from services.validator.evaluate import Evaluator
from services.validator.microsoft.calls import Microsoft
from services.validator.microsoft.model import MicrosoftUnavailableError, SuccessNotice
from services.validator.notices import Notices, said, success_notice
from services.validator.settings import Settings
from services.validator.withdrawals import UNCONFIRMED, Withdrawal, Withdrawals
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import append_first, read_authentic, read_stage
from shared.bus.series import Series, signing
from shared.bus.topology import CONFIRMER, gateway_hints
from shared.limits import PROFILE_PLACES, shortened
from shared.log.enrollment import confirms
from shared.log.envelope import SUBJECT, Message, Stored, sign
from shared.log.events.base import EventPayload
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
    EnrollmentApproved,
    EnrollmentRejected,
    IssuanceFailed,
)
from shared.log.events.state import NoticeBegun
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import CERTS, REPLAYS, enroll_stream
from shared.log.subjects import (
    EnrollmentId,
    certificate_issued,
    notice_begun,
    parse_prefix,
    parse_subject,
)
from shared.observe.logs import log_failure
from shared.observe.metrics import CONFIRMATIONS
from shared.runtime.places import Places
from shared.runtime.process import now
from shared.runtime.worker import DeferredError, Job, NotServedError, Workers

_log = structlog.get_logger()
_MOST_KEPT: Final = 65_536
_CONCURRENCY: Final = 16
_NOTICE_SECONDS: Final = 86400 * 30
_CALL_SECONDS: Final = 18.0  # a service that stops waits a little longer
_LONGEST_BUDGET: Final = 60.0  # seconds of a call, of a connection that is not known here
_MARGIN: Final = 5.0
_RELOAD_SECONDS: Final = 600.0  # by when every replica knows a connection that one of them has
_UNKNOWN: Final = "it is unknown whether Intune was notified: the validator stopped while it did so"
Confirmation = CertificateConfirmed | ConfirmationFailed


@dataclass(frozen=True)
class _Issued:
    """A withheld or notified certificate: its enrollment, its outcome, and who approved it."""

    enrollment: EnrollmentId
    stored: Stored
    event: CertificateIssued
    verdict: EnrollmentApproved


@dataclass
class Confirmer:
    """Handles results of profiles with a connection; `clock` returns the log's time, Unix seconds.

    `connections` are by name, `replica` is this process. What it decided and could not append yet
    is kept, since Intune may know of it. One message of an enrollment is handled at a time:
    another delivery of it, or a command to resume it, waits.
    """

    evaluator: Evaluator
    connections: Mapping[str, Microsoft]
    replica: str
    clock: Callable[[], float]
    _decided: dict[str, Confirmation] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)
    _confirming: set[str] = field(default_factory=set)
    _places: dict[str, Places] = field(default_factory=dict)

    @property
    def _bus(self) -> Bus:
        return self.evaluator.bus

    @property
    def _settings(self) -> Settings:
        return self.evaluator.live.current

    @property
    def _notices(self) -> Notices:
        return Notices(self.evaluator, self.connections, self.clock, self._places)

    async def handle(self, stored: Stored) -> None:
        """Confirm a certificate, or notify Intune of a result."""
        enrollment, stage = parse_subject(stored.subject)
        settings = self._settings
        if stage is Stage.VERDICT:
            verdict = read_stage(stored, settings.validators, stage)
            if isinstance(verdict, EnrollmentRejected):
                await self._notices.rejected(enrollment, stored, verdict)
            return
        event = read_stage(stored, settings.issuers, Stage.OUTCOME)
        verdict = await self._verdict(enrollment) if event is not None else None
        if verdict is None or not verdict.confirmed_by:
            return
        if isinstance(event, IssuanceFailed):
            await self._notices.failed(enrollment, stored, event.detail, verdict.confirmed_by)
        elif isinstance(event, CertificateIssued):
            issued = _Issued(enrollment, stored, event, verdict)
            await (self._confirm(issued) if event.withheld else self._notify_later(issued))

    async def give_up(self, stored: Stored) -> bool:
        """Handle a message that came often because it waited; fail a confirmation otherwise.

        A call that kills its worker is not repeated: its `NoticeBegun` record ends it.
        """
        try:
            await self.handle(stored)
        except (DeferredError, NotServedError, BusUnavailableError):
            raise
        except Exception as error:  # noqa: BLE001 - the last attempt: the device gets nothing
            log_failure("confirmation_failed", error, subject=stored.subject)
            await self._fail(stored)
            return False
        return True

    async def _fail(self, stored: Stored) -> None:
        enrollment, stage = parse_subject(stored.subject)
        event = read_stage(stored, self._settings.issuers, stage)
        verdict = await self._verdict(enrollment)
        if isinstance(event, CertificateIssued) and event.withheld and verdict is not None:
            issued = _Issued(enrollment, stored, event, verdict)
            first = await self._first(issued)
            detail = "the certificate could not be confirmed"
            await self._record(issued, _failed(issued, detail, withdrawn=first == enrollment))

    async def _confirm(self, issued: _Issued) -> None:
        """Append the one confirmation of a withheld certificate, and act on it."""
        stored = await self._stored(issued.enrollment)
        if stored is not None:
            await self._follow(issued, stored)
            return
        prefix = issued.enrollment.prefix()
        with self._alone(prefix):
            if prefix not in self._decided:
                decided = await self._decide(issued)
                if len(self._decided) >= _MOST_KEPT:
                    self._decided.clear()  # unknown then, and so never given out
                self._decided[prefix] = decided
            await self._record(issued, self._decided[prefix])
            self._decided.pop(prefix, None)

    @contextmanager
    def _alone(self, prefix: str) -> Iterator[None]:
        """Let nobody else in this process confirm an enrollment during a block."""
        if prefix in self._confirming:
            raise DeferredError(prefix)
        self._confirming.add(prefix)
        try:
            yield
        finally:
            self._confirming.discard(prefix)

    async def _record(self, issued: _Issued, event: Confirmation) -> None:
        subject = issued.enrollment.subject(Stage.CONFIRMATION)
        message = sign(event, subject, self._settings.signer)
        if await append_first(self._bus, subject, message):
            result = "confirmed" if isinstance(event, CertificateConfirmed) else "failed"
            CONFIRMATIONS.labels(event.connection, result).inc()
            await self._act(issued, event, message)
            return
        stored = await self._stored(issued.enrollment)
        if stored is None:
            raise BusUnavailableError("the conflicting confirmation is not readable yet")
        await self._follow(issued, stored)

    async def _follow(self, issued: _Issued, stored: Stored) -> None:
        """Act on a stored confirmation; a forged one is a failure, since no gateway obeys it."""
        request = issued.event.request_sha256
        event = read_stage(stored, self._settings.validators, Stage.CONFIRMATION, request)
        message = Message(stored.payload, dict(stored.headers))
        if isinstance(event, CertificateConfirmed | ConfirmationFailed):
            await self._act(issued, event, message)
            return
        first = await self._first(issued)
        await self._withdraw(issued, withdrawn=first == issued.enrollment)

    async def _act(self, issued: _Issued, event: Confirmation, message: Message) -> None:
        """Have a refused certificate revoked, and hint the waiting gateway."""
        if isinstance(event, ConfirmationFailed):
            await self._withdraw(issued, withdrawn=event.withdrawn)
        subject = issued.enrollment.subject(Stage.CONFIRMATION)
        hint = Message(message.payload, message.headers | {SUBJECT: subject})
        await self._bus.hint(gateway_hints(issued.verdict.gateway), hint)

    async def _withdraw(self, issued: _Issued, *, withdrawn: bool) -> None:
        if withdrawn:
            event, settings = issued.event, self._settings
            orders = Withdrawals(self._bus, settings.signer, settings.validators, settings.issuers)
            await orders.order(
                Withdrawal(event.confirmed_by, event.issuer, event.serial, UNCONFIRMED)
            )

    async def _decide(self, issued: _Issued) -> Confirmation:
        """Return what becomes of a withheld certificate; notify Intune if nobody has."""
        first = await self._first(issued)
        if first != issued.enrollment:
            known = await self._as_the_first(issued, first)
            if known is not None:
                return known
        context = await self._notices.context(issued.enrollment)
        microsoft = self.connections.get(issued.event.confirmed_by)
        if microsoft is None and self.clock() - issued.stored.seconds < _RELOAD_SECONDS:
            raise NotServedError(issued.enrollment.profile)  # a reload adds it, or another has it
        prefix, withdrawn = issued.enrollment.prefix(), first == issued.enrollment
        # From its record on, only this process can make the call: it must lack nothing any more.
        async with self._notices.place(issued.event.confirmed_by, prefix):
            if not await self._begin(issued):
                return _failed(issued, _UNKNOWN, withdrawn=withdrawn)
            self._begun.discard(prefix)
            if context is None or microsoft is None:
                detail = "the request or its connection is no longer available"
                return _failed(issued, detail, withdrawn=withdrawn)
            notice = success_notice(context, issued.event)
            return await self._notify(issued, microsoft, notice, withdrawn=withdrawn)

    async def _as_the_first(self, issued: _Issued, first: EnrollmentId) -> Confirmation | None:
        """Return the result of the enrollment that a certificate was made for.

        None if this connection's Intune was never to be notified of it. Waits for a confirmation
        that is under way.
        """
        stream, settings = enroll_stream(first.shard), self._settings
        outcome = await self._bus.get_last_or_leader(stream, first.subject(Stage.OUTCOME))
        made = read_stage(outcome, settings.issuers, Stage.OUTCOME) if outcome else None
        if not isinstance(made, CertificateIssued) or made.serial != issued.event.serial:
            return _failed(issued, "the certificate's own enrollment is not on the log")
        if not made.confirmed_by:
            return None
        if made.withheld:
            stored = await self._stored(first)
            if stored is None:
                raise DeferredError(first.prefix())
            request = made.request_sha256
            event = read_stage(stored, settings.validators, Stage.CONFIRMATION, request)
            if not confirms(event, made):
                return _failed(issued, "Intune did not accept the key's certificate")
        if made.confirmed_by != issued.event.confirmed_by:
            return None
        return _confirmed(issued, first=first.prefix())

    async def _begin(self, issued: _Issued) -> bool:
        """Record that Intune is about to be notified; return False if that was begun before.

        Waits until a notice of another replica, which may be under way, must have ended.
        """
        prefix = issued.enrollment.prefix()
        place = partial(notice_begun, issued.enrollment)
        trusted = self._settings.validators
        series = Series(self._bus, REPLAYS, place("*"), NoticeBegun, trusted, "notice")
        event = NoticeBegun(
            request_sha256=issued.event.request_sha256,
            connection=issued.event.confirmed_by,
            enrollment=prefix,
            replica=self.replica,
        )
        found = await series.newest()
        if found is None:
            self._begun.add(prefix)
            await series.append(None, signing(place, event, self._settings.signer, _NOTICE_SECONDS))
            found = await series.newest()
        if found is None:
            raise BusUnavailableError("the notice is not readable yet")
        if found.event.replica == self.replica:  # recorded by this process, or before it started
            return prefix in self._begun
        tenant = self._settings.connections().get(issued.event.confirmed_by)
        longest = _MARGIN + (tenant.budget if tenant is not None else _LONGEST_BUDGET)
        left = found.stored.seconds + longest - self.clock()
        if left > 0:
            raise DeferredError(prefix, left)
        return False

    async def _notify(
        self, issued: _Issued, microsoft: Microsoft, notice: SuccessNotice, *, withdrawn: bool
    ) -> Confirmation:
        """Notify Intune, once; return what the device gets."""
        try:
            answer = await microsoft.tell_success(notice, now() + _CALL_SECONDS)
        except MicrosoftUnavailableError as error:
            detail = f"Intune could not be notified: {error}"
            return _failed(issued, detail, withdrawn=withdrawn)
        if answer.accepted:
            return _confirmed(issued, activity=answer.activity_id)
        detail = f"Intune did not accept the certificate: {said(answer)}"
        return _failed(issued, detail, withdrawn=withdrawn)

    async def _notify_later(self, issued: _Issued) -> None:
        """Notify Intune of a certificate that its device has already, unless it was before."""
        if await self._first(issued) == issued.enrollment:
            await self._notices.issued(issued.enrollment, issued.stored, issued.event)

    async def _first(self, issued: _Issued) -> EnrollmentId:
        """Return the enrollment that a certificate was made for, by its record."""
        event = issued.event
        place = certificate_issued(event.issuer, event.serial)
        stored = await self._bus.get_last_or_leader(CERTS, place)
        if stored is None:
            raise BusUnavailableError("the certificate's record is not readable yet")
        trusted = self._settings.issuers
        record = read_authentic(CertificateRecorded, stored, trusted, "certificate")
        return parse_prefix(record.enrollment) if record is not None else issued.enrollment

    async def _verdict(self, enrollment: EnrollmentId) -> EnrollmentApproved | None:
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.VERDICT)
        stored = await self._bus.get_last_or_leader(stream, place)
        event: EventPayload | None = None
        if stored is not None:
            event = read_stage(stored, self._settings.validators, Stage.VERDICT)
        return event if isinstance(event, EnrollmentApproved) else None

    async def _stored(self, enrollment: EnrollmentId) -> Stored | None:
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.CONFIRMATION)
        return await self._bus.get_last_or_leader(stream, place)


def _confirmed(issued: _Issued, activity: str = "", first: str = "") -> CertificateConfirmed:
    event = issued.event
    return CertificateConfirmed(
        request_sha256=event.request_sha256,
        connection=event.confirmed_by,
        serial=event.serial,
        activity=activity,
        first=first,
    )


def _failed(issued: _Issued, detail: str, *, withdrawn: bool = False) -> ConfirmationFailed:
    event, reason = issued.event, Reason.NOT_CONFIRMED
    return ConfirmationFailed(
        request_sha256=event.request_sha256,
        connection=event.confirmed_by,
        serial=event.serial,
        reason=reason,
        fail_info=FAIL_INFO[reason],
        detail=shortened(detail),
        withdrawn=withdrawn,
    )


class ConfirmationWorkers:
    """Runs the confirmers while any profile has a connection."""

    def __init__(self, confirmer: Confirmer) -> None:
        """Start without shards."""
        self._confirmer = confirmer
        self._workers = Workers(confirmer.evaluator.bus, Role.VALIDATOR)

    async def reconcile(self, shards: Sequence[str]) -> None:
        """Handle the results on these shards and on no others."""
        does = self._confirmer
        jobs = [Job(enroll_stream(s), does.handle, does.give_up, CONFIRMER) for s in shards]
        policies = does.evaluator.live.current.policies.values()
        wanted = {each.connection for each in policies if each.connection}
        places = _CONCURRENCY + PROFILE_PLACES * len(wanted)
        await self._workers.reconcile(jobs if wanted else [], places)

    async def stop(self) -> None:
        """Stop, after the calls that are under way."""
        await self._workers.stop()
