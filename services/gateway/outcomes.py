"""Outcomes of enrollments: waits for them and reads them; only authentic events count."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from services.gateway.settings import Profile, Settings
from shared.bus.core import Bus
from shared.bus.log import report_forgery
from shared.ca.chains import Chain, ChainBook
from shared.log.enrollment import confirms
from shared.log.envelope import NANOSECONDS, SUBJECT, Stored, UnreadableEventError, authenticate
from shared.log.events.enrollment import (
    CertificateIssued,
    ConfirmationFailed,
    EnrollmentApproved,
    EnrollmentRejected,
    IssuanceFailed,
    Terminal,
)
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, parse_subject
from shared.runtime.live import Live
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError

_log = structlog.get_logger()
_POLL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A stored request to wait for, and the key that its certificate must carry.

    `spki` is empty for a poll, which does not carry the key; the verdict then supplies it.
    """

    enrollment: EnrollmentId
    sha256: str
    spki: bytes
    profile: Profile


@dataclass(frozen=True, slots=True)
class EnrollmentStatus:
    """Where an attempt is, according to the log.

    `terminal` is its terminal event, or None while in flight. `forged`: a stored event does not
    authenticate, so this attempt can never end. `held`: it waits for an operator. `time` is when
    the event was stored, in Unix seconds.
    """

    terminal: Terminal | None = None
    time: float = 0.0
    forged: bool = False
    held: bool = False

    @property
    def settled(self) -> bool:
        """Whether waiting any longer is pointless."""
        return self.terminal is not None or self.forged or self.held


@dataclass
class Outcomes:
    """Registry of waiters by enrollment; reads and checks the events that they wait for."""

    bus: Bus
    live: Live[Settings]
    chains: ChainBook
    _waiting: dict[str, set[asyncio.Future[Stored]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Hand a newly stored terminal event to its waiters, who authenticate it."""
        del subject
        about = headers.get(SUBJECT, "")
        stored = Stored(about, payload, headers, 0, 0)
        for future in self._waiting.get(about.rpartition(".")[0], ()):
            if not future.done():
                future.set_result(stored)

    @contextmanager
    def waiter(self, enrollment: EnrollmentId) -> Iterator["asyncio.Future[Stored]"]:
        """Yield a future for the enrollment's hint. Enter before the request is appended."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        key = enrollment.prefix()
        self._waiting[key].add(future)
        try:
            yield future
        finally:
            self._waiting[key].discard(future)
            if not self._waiting[key]:
                del self._waiting[key]

    async def wait(
        self,
        request: PendingRequest,
        chain: Chain,
        hint: "asyncio.Future[Stored]",
        deadline: float,
    ) -> EnrollmentStatus:
        """Return the status once it is settled, by hint or a read every second.

        Return an empty one at `deadline` (loop time).
        """
        loop = asyncio.get_running_loop()
        hinted = False
        while (left := deadline - loop.time()) > 0:
            if hinted:  # the hint did not settle it: from here on only the log counts
                await asyncio.sleep(min(left, _POLL_SECONDS))
            else:
                await asyncio.wait((hint,), timeout=min(left, _POLL_SECONDS))
            if hint.done() and not hinted:
                hinted = True
                end = await self._check(hint.result(), request, chain)
                if end.settled and not end.forged:
                    return end
            end = await self.read(request, chain)
            if end.settled:
                return end
        return EnrollmentStatus()

    async def polled(self, request: PendingRequest, chain: Chain) -> EnrollmentStatus:
        """Return the same as `read`, for a poll: the key comes from the verdict."""
        stream = enroll_stream(request.enrollment.shard)
        place = request.enrollment.subject(Stage.VERDICT)
        stored = await self.bus.get_last_or_leader(stream, place)
        try:
            verdict = stored and authenticate(
                stored, self.live.current.validators, Stage.VERDICT, request.sha256
            )
        except UnreadableEventError:
            verdict = None  # reported by `read`
        if isinstance(verdict, EnrollmentApproved):
            request = replace(request, spki=verdict.template.spki)
        return await self.read(request, chain)

    async def read(self, request: PendingRequest, chain: Chain) -> EnrollmentStatus:
        """Return the status on the log: the outcome, else a refusing verdict, else a hold."""
        stream = enroll_stream(request.enrollment.shard)
        for stage in (Stage.OUTCOME, Stage.VERDICT, Stage.HOLD):
            stored = await self.bus.get_last(stream, request.enrollment.subject(stage))
            if stored is None:
                continue
            end = await self._check(stored, request, chain)
            if end.settled or stage in (Stage.VERDICT, Stage.OUTCOME):
                return end
        return EnrollmentStatus()

    async def _check(
        self, stored: Stored, request: PendingRequest, chain: Chain
    ) -> EnrollmentStatus:
        try:
            event = self._authentic(stored, request)
            if isinstance(event, CertificateIssued):
                await self._check_certificate(event, request, chain)
                if event.withheld:
                    return await self._withheld(event, request)
        except UnreadableEventError as error:
            report_forgery(stored.subject.rpartition(".")[2], stored.subject, error)
            return EnrollmentStatus(forged=True)
        held = stored.subject == request.enrollment.subject(Stage.HOLD)
        return EnrollmentStatus(event, stored.time / NANOSECONDS, held=held)

    async def _withheld(
        self, issued: CertificateIssued, request: PendingRequest
    ) -> EnrollmentStatus:
        """Return the status of a certificate that the device gets only after its confirmation.

        Raises `UnreadableEventError` if a forged event occupies the confirmation's subject.
        """
        enrollment = request.enrollment
        place, stream = enrollment.subject(Stage.CONFIRMATION), enroll_stream(enrollment.shard)
        stored = await self.bus.get_last(stream, place)
        if stored is None:
            return EnrollmentStatus()
        trusted = self.live.current.validators
        event = authenticate(stored, trusted, Stage.CONFIRMATION, request.sha256)
        at = stored.time / NANOSECONDS
        if confirms(event, issued):
            return EnrollmentStatus(issued, at)
        if isinstance(event, ConfirmationFailed):
            return EnrollmentStatus(event, at)
        raise UnreadableEventError("the confirmation is of another certificate")

    def _authentic(self, stored: Stored, request: PendingRequest) -> Terminal | None:
        """Return an authentic outcome or rejection, or None for an approval or a hold.

        Also None for a confirmation, which is read with its outcome.

        Raises `UnreadableEventError` for any other event.
        """
        if stored.subject == request.enrollment.subject(Stage.OUTCOME):
            stage, trusted = Stage.OUTCOME, self.live.current.issuers
        elif stored.subject == request.enrollment.subject(Stage.VERDICT):
            stage, trusted = Stage.VERDICT, self.live.current.validators
        elif stored.subject == request.enrollment.subject(Stage.HOLD):
            stage, trusted = Stage.HOLD, self.live.current.validators
        elif stored.subject == request.enrollment.subject(Stage.CONFIRMATION):
            return None
        else:
            raise UnreadableEventError("event belongs to another enrollment")
        event = authenticate(stored, trusted, stage, request.sha256)
        if isinstance(event, CertificateIssued | IssuanceFailed | EnrollmentRejected):
            return event
        return None

    async def _check_certificate(
        self, event: CertificateIssued, request: PendingRequest, chain: Chain
    ) -> None:
        """Raise `UnreadableEventError` unless a pinned CA signed it for the requested key.

        After a rollover the new CA is on the log before its first certificate, but this gateway
        may not have read it yet, so the chain is read again before the certificate is refused.
        """
        try:
            carried = read_certificate(event.certificate).spki
        except ScepError:
            raise UnreadableEventError("the certificate does not parse") from None
        if carried != request.spki:
            raise UnreadableEventError("the certificate is for another key")
        if chain.issued(event.certificate):
            return
        profile = request.profile
        newest = await self.chains.reread(profile.issuer, profile.ca_spki_sha256)
        if newest is None or not newest.issued(event.certificate):
            raise UnreadableEventError("the certificate is not from a pinned CA")


def enrollment_in(stored: Stored | None) -> EnrollmentId | None:
    """Return the enrollment of a stored request.

    Return None without a request, or if its subject is invalid: a compromised gateway can make
    subjects up.
    """
    try:
        return parse_subject(stored.subject)[0] if stored is not None else None
    except ValueError:
        return None
