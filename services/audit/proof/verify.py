"""`audit verify`: check the log event by event, replay it, and compare the database with it."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from services.audit.proof.diff import differences
from services.audit.proof.log_verifier import LogVerifier
from services.audit.record.digest import BEGIN, advance, event_digest, own_headers
from services.audit.record.log_reader import last_sequence, read
from services.audit.record.write import position_of, store
from services.audit.store.engine import Connection, Engine
from shared.bus.core import Bus
from shared.log.envelope import Stored, Trusted, UnreadableEventError, authenticate_as
from shared.log.events.state import CheckpointSigned
from shared.log.streams import OPS
from shared.log.subjects import checkpoint

Progress = Callable[[int], None]
Digests = Mapping[int, str]


@dataclass
class Verification:
    """The result of a verification: counts, and findings in the order they were made.

    `unrecorded` is how many events of a stream the database does not have yet.
    """

    events: int = 0
    checkpoints: int = 0
    findings: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    unrecorded: dict[str, int] = field(default_factory=dict)


async def verify(
    bus: Bus,
    actual: Connection,
    scratch: Engine,
    streams: Sequence[str],
    verifier: LogVerifier,
    progress: Progress,
) -> Verification:
    """Verify the log as far as the database has it, and compare the two.

    `actual` reads one snapshot of the database. The log is replayed into `scratch`, which must be
    empty.
    """
    found = Verification()
    for stream in streams:
        verification = _StreamVerification(bus, stream, scratch, verifier, found, progress)
        recorded, last = position_of(actual, stream), await last_sequence(bus, stream)
        if last < recorded:
            found.findings.append(
                f"{stream}: the log ends at {last}, the database at {recorded}; the log was"
                " replaced by an older one or truncated; see `scepstream audit reconcile`"
            )
        await verification.run(min(recorded, last))
        found.unrecorded[stream] = max(0, last - recorded)
    with scratch.connect() as expected:
        found.findings += differences(actual, expected)
    found.unfinished = verifier.unfinished()
    return found


@dataclass
class _StreamVerification:
    """One stream: verified, compared with its checkpoints, replayed."""

    bus: Bus
    stream: str
    scratch: Engine
    verifier: LogVerifier
    found: Verification
    progress: Progress
    digest: str = BEGIN
    expected: int = 1

    async def run(self, last: int) -> None:
        """Verify from the first event to `last`, the last one that the database has."""
        digests = await _checkpoints(self.bus, self.stream, self.verifier.keys.operators)
        async for batch in read(self.bus, self.stream, 1, last):
            for message in batch:
                self._event(message, digests)
            store(self.scratch, self.stream, batch)
            self.found.events += len(batch)
            self.progress(len(batch))
        self._missing(last + 1)

    def _event(self, message: Stored, digests: Digests) -> None:
        self._missing(message.sequence)
        self.expected = message.sequence + 1
        place = f"{self.stream}#{message.sequence}"
        if problem := self.verifier.examine(message):
            self.found.findings.append(f"{place} {message.subject}: {problem}")
        self.digest = advance(self.digest, event_digest(message, own_headers(message)))
        signed = digests.get(message.sequence)
        if signed is None:
            return
        self.found.checkpoints += 1
        if signed != self.digest:
            problem = "log digest does not match the signed checkpoint"
            self.found.findings.append(f"{place}: {problem}")

    def _missing(self, until: int) -> None:
        first, last = self.expected, until - 1
        if first < last:
            self.found.findings.append(f"{self.stream}#{first}-{last}: missing from the log")
        elif first == last:
            self.found.findings.append(f"{self.stream}#{first}: missing from the log")


async def _checkpoints(bus: Bus, stream: str, operators: Trusted) -> Digests:
    """Return the digests of a stream's signed checkpoints, by sequence.

    Forged ones are left out: the verifier reports them.
    """
    found: dict[int, str] = {}
    async for stored in _every(bus, checkpoint(stream, "*")):
        try:
            event = authenticate_as(CheckpointSigned, stored, operators)
        except UnreadableEventError:
            continue
        if event.stream == stream:
            found[event.sequence] = event.digest
    return found


async def _every(bus: Bus, wildcard: str) -> AsyncIterator[Stored]:
    position = 0
    while stored := await bus.get_next_or_leader(OPS, wildcard, position + 1):
        position = stored.sequence
        yield stored
