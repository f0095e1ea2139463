"""The ends of enrollments: waited for, read from the log, believed only when authentic."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.gateway.settings import Profile, Settings
from shared.bus.core import Bus
from shared.bus.topology import enroll_stream
from shared.chains import Chain
from shared.events import (
    SUBJECT,
    CertificateIssued,
    EnrollmentRejected,
    IssuanceFailed,
    Stored,
    Terminal,
    UnreadableEventError,
    authenticate,
)
from shared.scep.certificate import read_certificate
from shared.scep.errors import ScepError
from shared.subjects import EnrollmentId, Stage
from shared.telemetry import SECURITY_EVENTS

_log = structlog.get_logger()
_POLL_SECONDS: Final = 1.0
_NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """A stored request whose end is wanted, and what a certificate for it must carry."""

    enrollment: EnrollmentId
    sha256: str
    spki: bytes
    profile: Profile


@dataclass(frozen=True, slots=True)
class End:
    """What the log holds at the end of an attempt.

    `terminal` is None while it is in flight; `forged` says that a stored event does not
    authenticate, so that this attempt can never end; `time` is Unix seconds.
    """

    terminal: Terminal | None = None
    time: float = 0.0
    forged: bool = False


@dataclass
class Outcomes:
    """Who waits for which enrollment, and how its end is checked."""

    bus: Bus
    settings: Settings
    _waiting: dict[str, set[asyncio.Future[Stored]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """A terminal event was stored: hand it to whoever waits; they check it."""
        del subject
        about = headers.get(SUBJECT, "")
        stored = Stored(about, payload, headers, 0, 0)
        for future in self._waiting.get(about.rpartition(".")[0], ()):
            if not future.done():
                future.set_result(stored)

    @contextmanager
    def waiter(self, enrollment: EnrollmentId) -> Iterator["asyncio.Future[Stored]"]:
        """A future for the enrollment's hint: registered before the request is appended."""
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
        request: Request,
        chain: Chain,
        hint: "asyncio.Future[Stored]",
        deadline: float,
    ) -> End:
        """The end, by hint or else by asking every second, until `deadline` (loop time)."""
        loop = asyncio.get_running_loop()
        hinted = False
        while (left := deadline - loop.time()) > 0:
            if hinted:  # it was worth nothing: only what the log itself says counts
                await asyncio.sleep(min(left, _POLL_SECONDS))
            else:
                await asyncio.wait((hint,), timeout=min(left, _POLL_SECONDS))
            if hint.done() and not hinted:
                hinted = True
                end = self._check(hint.result(), request, chain)
                if end.terminal is not None:
                    return end
            end = await self.read(request, chain)
            if end.terminal is not None or end.forged:
                return end
        return End()

    async def read(self, request: Request, chain: Chain) -> End:
        """The end as the log has it: the outcome, else the verdict if it is a refusal."""
        stream = enroll_stream(request.enrollment.shard)
        for stage in (Stage.OUTCOME, Stage.VERDICT):
            stored = await self.bus.get_last(stream, request.enrollment.subject(stage))
            if stored is None:
                continue
            end = self._check(stored, request, chain)
            if end.terminal is not None or end.forged:
                return end
        return End()

    def _check(self, stored: Stored, request: Request, chain: Chain) -> End:
        try:
            event = self._authentic(stored, request, chain)
        except UnreadableEventError as error:
            SECURITY_EVENTS.labels(stored.subject.rpartition(".")[2]).inc()
            _log.error("event_not_authentic", subject=stored.subject, detail=str(error))
            return End(forged=True)
        return End(event, stored.time / _NANOSECONDS)

    def _authentic(self, stored: Stored, request: Request, chain: Chain) -> Terminal | None:
        """The terminal event; None for an approval, which is no end."""
        if stored.subject == request.enrollment.subject(Stage.OUTCOME):
            stage, trusted = Stage.OUTCOME, self.settings.issuers
        elif stored.subject == request.enrollment.subject(Stage.VERDICT):
            stage, trusted = Stage.VERDICT, self.settings.validators
        else:
            raise UnreadableEventError("about another enrollment")
        event = authenticate(stored, trusted, stage, request.sha256)
        if isinstance(event, CertificateIssued) and not _is_ours(event, request, chain):
            raise UnreadableEventError("the certificate is not for this key or not from this CA")
        if isinstance(event, CertificateIssued | IssuanceFailed | EnrollmentRejected):
            return event
        return None


def _is_ours(event: CertificateIssued, request: Request, chain: Chain) -> bool:
    """Whether the certificate carries the requested key and the pinned CA signed it."""
    try:
        carried = read_certificate(event.certificate).spki
    except ScepError:
        return False
    return carried == request.spki and chain.issued(event.certificate)
