"""Pulls the revocations that a tenant's Intune asks for, and reports their results.

Theory of operation. One replica at a time works for a connection: it holds a lease, a series of
`LeaseTaken` records. Each request is recorded (`RevocationRequested`) before anything is done:
Intune may not repeat it. Only a certificate that this connection's Intune was notified of is
withdrawn. A result is reported once the issuer has answered, which it does when CRL and OCSP say
"revoked", and then recorded (`RevocationReported`). After a kill anywhere the next holder of the
lease continues from the log; reporting twice is harmless.
See docs/decisions/0052-revocations-are-pulled-under-a-lease.md.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from services.validator.evaluate import Evaluator
from services.validator.microsoft.calls import Microsoft
from services.validator.microsoft.model import (
    MAX_REVOCATIONS,
    MicrosoftUnavailableError,
    Problem,
    RevocationAsked,
    RevocationError,
    RevocationResult,
)
from services.validator.settings import Settings
from services.validator.withdrawals import REQUESTED, Withdrawal, Withdrawals
from shared.bus.core import Bus
from shared.bus.log import append_first, read_authentic, read_stage
from shared.bus.series import Series, SeriesTooLongError, signing
from shared.limits import shortened
from shared.log.envelope import sign
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import CertificateIssued
from shared.log.events.state import LeaseTaken, RevocationReported, RevocationRequested
from shared.log.stages import Stage
from shared.log.streams import CERTS, OPS, REPLAYS, enroll_stream
from shared.log.subjects import (
    certificate_issued,
    connection_lease,
    parse_prefix,
    revocation_report,
    revocation_request,
)
from shared.x509.serials import read_serial

_log = structlog.get_logger()
_ROUNDS: Final = 20
_LEASE_SECONDS: Final = 120.0
_KEPT_SECONDS: Final = 86400
_BATCH: Final = 100
_FEW: Final = 3  # refused results in a row, after which Intune refuses whatever it gets


@dataclass(frozen=True, slots=True)
class PullStatus:
    """What a replica knows of its pulls: when the last ended (Unix seconds), and what is open."""

    at: float = 0.0
    open: int = 0
    error: str = ""


@dataclass
class RevocationPull:
    """The pull of one connection; `clock` returns the log's time in Unix seconds.

    For `rest` seconds after a download Intune is not asked for requests again. `_cursor` is the
    sequence up to which every request has been reported. `held_for` is how long (seconds) another
    replica's lease still lasted at the last pass, 0 if none did. `_refused` are the contexts whose
    results Intune refused since the download, and why. `_sent` are results that the log
    could not take.
    """

    evaluator: Evaluator
    connection: str
    microsoft: Microsoft
    replica: str
    clock: Callable[[], float]
    rest: float = 0.0
    status: PullStatus = field(default_factory=PullStatus)
    held_for: float = 0.0
    _cursor: int = 0
    _due: float = 0.0
    _refused: dict[str, str] = field(default_factory=dict)
    _leaseless: str = ""
    _sent: dict[str, RevocationResult] = field(default_factory=dict)

    @property
    def _bus(self) -> Bus:
        return self.evaluator.bus

    @property
    def _settings(self) -> Settings:
        return self.evaluator.live.current

    async def pull(self) -> bool:
        """Make one pass, if no other replica does; return whether issuers have yet to answer."""
        try:
            if not await self._lease():
                self.status = PullStatus()  # the replica that pulls knows better
                return False
            left = await self._pass()
        except Exception as error:
            detail = shortened(str(error) or type(error).__name__)
            self.status = PullStatus(self.clock(), self.status.open, detail)
            raise
        problem = next(iter(self._refused.values()), self._leaseless)
        self.status = PullStatus(self.clock(), left + len(self._refused), problem)
        return left > 0

    async def _pass(self) -> int:
        """Report what is done, and ask for more if it is time; return how many are left."""
        if self.clock() < self._due:
            return await self._report()
        self._refused.clear()
        await self._report()
        await self._download()
        self._due = self.clock() + self.rest
        return await self._report()

    async def _lease(self) -> bool:
        """Take the lease, or extend it in time; return False while another replica has it."""
        place = partial(connection_lease, self.connection)
        trusted = self._settings.validators
        series = Series(self._bus, REPLAYS, place("*"), LeaseTaken, trusted, "lease")
        try:
            newest, now = await series.newest(), self.clock()
        except SeriesTooLongError as error:  # forged leases stop no pull: two at once are harmless
            self._leaseless = shortened(str(error))
            _log.error("lease_unreadable", connection=self.connection, detail=self._leaseless)
            return True
        self._leaseless = ""
        left = newest.event.until - now if newest is not None else 0.0
        self.held_for = 0.0
        if newest is not None and newest.event.replica != self.replica and left > 0:
            self.held_for = left
            return False
        if left > _LEASE_SECONDS / 2:
            return True
        until = int(now + _LEASE_SECONDS)
        event = LeaseTaken(connection=self.connection, replica=self.replica, until=until)
        written = signing(place, event, self._settings.signer, _KEPT_SECONDS)
        return await series.append(newest, written) is not None

    async def _download(self) -> None:
        """Record what Intune asks for, until it asks for nothing new.

        It has no pages, and repeats what was not reported. A request that was reported before was
        not received there: it is reported again.
        """
        for _ in range(_ROUNDS):
            if not await self._lease():
                return
            asked = await self.microsoft.download_revocations(MAX_REVOCATIONS)
            new = [each for each in asked if await self._record(each)]
            again = [each for each in asked if each not in new]
            repeated = [r for each in again if (r := await self._reported(each.context))]
            for part in _parts(repeated):
                await self._upload(part)
            if not new:
                return
            await self._report()

    async def _record(self, asked: RevocationAsked) -> bool:
        """Record a request; return False if it was recorded before."""
        subject = revocation_request(self.connection, asked.context)
        event = RevocationRequested(
            connection=self.connection, context=asked.context, serial=asked.serial
        )
        return await append_first(self._bus, subject, sign(event, subject, self._settings.signer))

    async def _report(self) -> int:
        """Act on recorded requests and report those that are done; return how many are left."""
        left, done = 0, list[RevocationResult]()
        async for asked in self._open():
            if asked.context in self._refused:
                continue
            result = await self._carry_out(asked)
            if result is None:
                left += 1
                continue
            done.append(result)
            if len(done) == _BATCH:
                await self._upload(done)
                done.clear()
        await self._upload(done)
        return left

    async def _open(self) -> AsyncIterator[RevocationRequested]:
        """Yield the recorded requests without a report, in order."""
        wildcard, begin = revocation_request(self.connection, "*"), self._cursor + 1
        is_first = True
        while stored := await self._bus.get_next_or_leader(OPS, wildcard, begin):
            begin = stored.sequence + 1
            trusted = self._settings.validators
            asked = read_authentic(RevocationRequested, stored, trusted, "intune")
            if asked is None or await self._reported(asked.context) is not None:
                if is_first:
                    self._cursor = stored.sequence
                continue
            is_first = False
            yield asked

    async def _carry_out(self, asked: RevocationRequested) -> RevocationResult | None:
        """Have a certificate revoked; return the result, None until the issuer has answered."""
        serial = read_serial(asked.serial)
        issuer = await self._issuer(serial) if serial is not None else None
        if serial is None or issuer is None:
            detail = "no such certificate was issued for this tenant"
            return RevocationResult(asked.context, False, RevocationError.NOT_FOUND, detail)
        settings = self._settings
        orders = Withdrawals(self._bus, settings.signer, settings.validators, settings.issuers)
        answer = await orders.order(Withdrawal(self.connection, issuer, serial, REQUESTED))
        if answer is None:
            return None
        if answer.done:
            return RevocationResult(asked.context, True)
        failed = RevocationError.NON_RETRYABLE
        return RevocationResult(asked.context, False, failed, shortened(answer.detail))

    async def _issuer(self, serial: str) -> str | None:
        """Return the issuer of a certificate that this tenant's Intune was notified of.

        It may be one that the connection's profiles no longer use.
        """
        for issuer in sorted({p.issuer for p in self._settings.policies.values()}):
            stored = await self._bus.get_last_or_leader(CERTS, certificate_issued(issuer, serial))
            if stored is None:
                continue
            trusted = self._settings.issuers
            record = read_authentic(CertificateRecorded, stored, trusted, "certificate")
            if record is not None and await self._is_own(record, serial):
                return issuer
        return None

    async def _is_own(self, record: CertificateRecorded, serial: str) -> bool:
        enrollment = parse_prefix(record.enrollment)
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.OUTCOME)
        stored = await self._bus.get_last_or_leader(stream, place)
        issued = stored and read_stage(stored, self._settings.issuers, Stage.OUTCOME)
        if not isinstance(issued, CertificateIssued) or issued.serial != serial:
            return False
        return issued.confirmed_by == self.connection

    async def _reported(self, context: str) -> RevocationResult | None:
        """Return the result that was reported of a request, None if none was."""
        place = revocation_report(self.connection, context)
        stored = await self._bus.get_last_or_leader(OPS, place)
        if stored is None:
            return None
        trusted = self._settings.validators
        event = read_authentic(RevocationReported, stored, trusted, "intune")
        if event is None:  # forged: it occupies the place, so only this process knows better
            return self._sent.get(context)
        error = RevocationError(event.error) if event.error else RevocationError.NONE
        return RevocationResult(context, event.succeeded, error, event.detail)

    async def _upload(self, results: Sequence[RevocationResult]) -> None:
        """Report results, then record that they were.

        If Intune refuses them, each is sent by itself: one must not hold up the others.
        """
        if not results:
            return
        try:
            await self.microsoft.upload_results(results)
        except MicrosoftUnavailableError as error:
            if error.kind is not Problem.PROTOCOL:
                raise
            await self._upload_each(results)
            return
        for each in results:
            await self._record_report(each)

    async def _upload_each(self, results: Sequence[RevocationResult]) -> None:
        """Report results one by one; raises if Intune refuses all of the first few."""
        accepted = 0
        for number, each in enumerate(results, 1):
            try:
                await self.microsoft.upload_results((each,))
            except MicrosoftUnavailableError as error:
                if error.kind is not Problem.PROTOCOL or (number > _FEW and not accepted):
                    raise
                self._refused[each.context] = str(error)
                _log.error(
                    "revocation_report_refused", connection=self.connection, detail=str(error)
                )
                continue
            accepted += 1
            await self._record_report(each)

    async def _record_report(self, result: RevocationResult) -> None:
        subject = revocation_report(self.connection, result.context)
        event = RevocationReported(
            connection=self.connection,
            context=result.context,
            succeeded=result.succeeded,
            error="" if result.succeeded else result.error_code.value,
            detail=result.error_message,
        )
        message = sign(event, subject, self._settings.signer)
        if await append_first(self._bus, subject, message):
            _log.info("revocation_reported", connection=self.connection, succeeded=result.succeeded)
        else:  # reported before, or the place is occupied by a forged event
            self._sent[result.context] = result


def _parts(results: Sequence[RevocationResult]) -> list[Sequence[RevocationResult]]:
    return [results[at : at + _BATCH] for at in range(0, len(results), _BATCH)]
