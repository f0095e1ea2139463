"""State that all validators share: who holds a challenge, and how often a device enrolled.

Theory of operation. Replicas share no memory, only streams of signed events; the append that comes
first decides.

* A challenge is claimed with a series of records under its digest (`claim`). The first authentic
  record binds it to a key and a CSR. Another request with that CSR is admitted only after all
  earlier ones have failed; it then appends a record of its own.
* While the holder's enrollment is open, another message with the same CSR waits
  (`is_held_by_another`, `_defer`): it is redelivered later. A mark on the log shows, after many
  deliveries, that the message only waited.
* A device's window is one event with all entries of the last 24 hours (`take_place`), replaced by
  compare-and-set. The entry of an enrollment that failed does not count.
* A redelivered request finds everything that its earlier deliveries wrote, so a kill at any point
  changes nothing. All numbers are bounded (`shared/limits.py`), because whoever recorded a device's
  message can sign it again as often as they like.

See docs/decisions/0014-challenges-are-claimed-by-an-append.md and 0015.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NoReturn

import structlog

from services.validator.challenges.replay import time_to_keep
from services.validator.challenges.verifier import ChallengeRequest
from services.validator.challenges.windows import WINDOW_SECONDS, Counted, Full, count, is_others
from shared.bus.core import Bus, BusUnavailableError
from shared.bus.ended import has_failed
from shared.bus.log import report_forgery
from shared.bus.series import Entry, Series, signing
from shared.limits import SAME_CSR_PLACES, SAME_CSR_RECORDS, WAITING_PLACES
from shared.log.envelope import (
    EventSigner,
    Trusted,
    UnreadableEventError,
    authenticate,
)
from shared.log.events.enrollment import CertificateIssued
from shared.log.events.state import ChallengeClaimed, DeviceCounted
from shared.log.stages import Stage
from shared.log.streams import DEVICES, REPLAYS, enroll_stream
from shared.log.subjects import (
    EnrollmentId,
    device_subject,
    parse_prefix,
    replay_record,
    same_csr,
    token,
)
from shared.runtime.worker import DeferredError

_log = structlog.get_logger()
# A window is written again for each new entry, so it outlives all of them.
_WINDOW_TTL = WINDOW_SECONDS + 3600
_DEFERRED: Final = "deferred"
_MARK_SECONDS: Final = 30 * 86400
_WAITS_SECONDS: Final = 90.0  # three times the longest pause between two deliveries


class TooManyWaitError(Exception):
    """Raised if too many requests wait in this replica, or too many with one CSR have failed."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """Who holds a challenge.

    `record` is the holder's record, which the log stored at `recorded_at`. The log stored the
    challenge's first record, whose attempt may have failed since, at `first_used_at`. Both are Unix
    nanoseconds.
    """

    record: ChallengeClaimed
    recorded_at: int
    first_used_at: int


@dataclass(frozen=True)
class Records:
    """The state that all validator replicas share, stored in the log's own server.

    `waiting` is what waits in this replica: an attempt's prefix to the attempt that it waits for,
    and when it last did so (loop time). It outlives a reload, or its limits would start again.
    """

    bus: Bus
    signer: EventSigner
    validators: Trusted
    issuers: Trusted
    waiting: dict[str, tuple[str, float]] = field(default_factory=dict)

    async def claim(self, asked: ChallengeRequest, kind: str, digest: str, until: int) -> Claimed:
        """Bind a challenge to this enrollment unless it is bound; return who holds it.

        The first authentic record of the log binds it to a key and a CSR, whichever replica wrote
        it. Of the messages with that CSR, the first that has not failed holds the challenge; if all
        have failed, this enrollment appends a record of its own. Every replica continues from what
        is stored, so a kill at any point leaves a record that the redelivery finds. `until` is when
        the challenge expires (Unix seconds).

        Raises `TooManyWaitError` after `SAME_CSR_RECORDS` failed messages with that CSR: whoever
        recorded a message can sign it again without end.
        """
        place, prefix = partial(replay_record, kind, digest), asked.enrollment.prefix()
        mine = ChallengeClaimed(
            request_sha256=asked.request_sha256,
            kind=kind,
            enrollment=prefix,
            spki_sha256=asked.opened.facts.spki_sha256,
            expires_at=until,
        )
        written = signing(place, mine, self.signer, time_to_keep(until, asked.asked_at))
        series = Series(self.bus, REPLAYS, place("*"), ChallengeClaimed, self.validators, "replay")
        await series.append(None, written)
        first: Entry[ChallengeClaimed] | None = None
        last: Entry[ChallengeClaimed] | None = None
        looked_at = 0
        while True:
            async for entry in series.all(after=last):
                first, last, record = first or entry, entry, entry.event
                decided = record.enrollment == prefix or not _same_request(record, mine)
                if decided or not await self._failed(record.enrollment):
                    return Claimed(record, entry.stored.time, first.stored.time)
                looked_at += 1
                if looked_at >= SAME_CSR_RECORDS:
                    raise TooManyWaitError
            if last is None:
                raise BusUnavailableError("the replay record is not readable yet")
            await series.append(last, written)

    async def is_held_by_another(self, asked: ChallengeRequest, record: ChallengeClaimed) -> bool:
        """Return whether another enrollment holds the challenge, so that this one cannot use it.

        A message with the holder's CSR under another signer, or a later attempt, waits until the
        holder has ended: `DeferredError`.
        """
        holder = parse_prefix(record.enrollment)
        if holder == asked.enrollment:
            return False
        if same_csr(holder, asked.enrollment) and not await self._has_certificate(holder):
            await self._defer(asked, record)
        return True

    async def _defer(self, asked: ChallengeRequest, record: ChallengeClaimed) -> NoReturn:
        """Make a request wait for one with the same CSR, which another message brought first.

        A mark on the log records the wait, for whoever gets the message after many deliveries. Only
        so many may wait: whoever recorded a message can sign it again without end, and the server
        stops delivering when too many messages are not acknowledged.
        """
        prefix, now = asked.enrollment.prefix(), asyncio.get_running_loop().time()
        for gone in [p for p, w in self.waiting.items() if now - w[1] > _WAITS_SECONDS]:
            del self.waiting[gone]
        same = sum(holder == record.enrollment for holder, _ in self.waiting.values())
        full = same >= SAME_CSR_PLACES or len(self.waiting) >= WAITING_PLACES
        if full and prefix not in self.waiting:
            raise TooManyWaitError
        self.waiting[prefix] = record.enrollment, now
        await self.mark_wait(asked)
        raise DeferredError(record.enrollment)

    async def deferred(self, enrollment: EnrollmentId) -> bool:
        """Return whether this attempt ever had to wait: for another request, or for its device."""
        return await self.has_mark(_DEFERRED, enrollment.prefix())

    async def mark_wait(self, asked: ChallengeRequest) -> None:
        """Record that an attempt waits, for whoever gets its message after many deliveries."""
        await self.set_mark(_DEFERRED, asked, _MARK_SECONDS)

    async def has_mark(self, kind: str, prefix: str) -> bool:
        """Return whether an attempt has a mark of a kind."""
        mark = await self._marks(kind, prefix).first()
        return mark is not None and mark.event.enrollment == prefix

    async def set_mark(self, kind: str, asked: ChallengeRequest, seconds: int) -> None:
        """Mark an attempt for some time; marking it again changes nothing."""
        prefix = asked.enrollment.prefix()
        event = ChallengeClaimed(
            request_sha256=asked.request_sha256,
            kind=kind,
            enrollment=prefix,
            spki_sha256=asked.opened.facts.spki_sha256,
            expires_at=asked.asked_at + seconds,
        )
        place = partial(replay_record, kind, token(prefix.encode()))
        await self._marks(kind, prefix).append(None, signing(place, event, self.signer, seconds))

    def _marks(self, kind: str, prefix: str) -> Series[ChallengeClaimed]:
        wildcard = replay_record(kind, token(prefix.encode()), "*")
        return Series(self.bus, REPLAYS, wildcard, ChallengeClaimed, self.validators, "replay")

    async def _has_certificate(self, enrollment: EnrollmentId) -> bool:
        """Return whether an attempt led to a certificate; a forged outcome counts as one."""
        stream = enroll_stream(enrollment.shard)
        stored = await self.bus.get_last_or_leader(stream, enrollment.subject(Stage.OUTCOME))
        if stored is None:
            return False
        try:
            return isinstance(authenticate(stored, self.issuers, Stage.OUTCOME), CertificateIssued)
        except UnreadableEventError as error:
            report_forgery(Stage.OUTCOME, stored.subject, error)
            return True

    async def take_place(self, asked: ChallengeRequest, device: str, limit: int) -> Counted | Full:
        """Count this enrollment for its device, by compare-and-set against all replicas."""
        place = partial(device_subject, device)
        series = Series(self.bus, DEVICES, place("*"), DeviceCounted, self.validators, "device")
        while True:
            newest = await series.newest()
            window = newest.event.entries if newest is not None else ()
            signed_again = [e.enrollment for e in window if is_others(e, asked.enrollment)]
            failed = [each for each in signed_again if await self._failed(each)]
            found = count(window, asked.enrollment, asked.asked_at, limit, failed)
            if isinstance(found, Full):
                others = (e.enrollment for e in found.entries)
                failed += [each for each in others if await self._failed(each)]
                found = count(window, asked.enrollment, asked.asked_at, limit, failed)
            if isinstance(found, Full) or not found.changed:
                return found
            event = DeviceCounted(request_sha256=asked.request_sha256, entries=found.entries)
            written = signing(place, event, self.signer, _WINDOW_TTL)
            if await series.append(newest, written) is not None:
                return found

    async def _failed(self, prefix: str) -> bool:
        return await has_failed(self.bus, prefix, self.validators, self.issuers)


def _same_request(one: ChallengeClaimed, other: ChallengeClaimed) -> bool:
    """Return whether two uses of a challenge are for one CSR, whoever signed the messages."""
    same = same_csr(parse_prefix(one.enrollment), parse_prefix(other.enrollment))
    return same and one.spki_sha256 == other.spki_sha256
