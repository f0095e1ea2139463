"""`audit verify`: check the log event by event, replay it, and compare the database with it."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from services.audit.proof.diff import differences, row_differences
from services.audit.proof.log_verifier import LogVerifier
from services.audit.record.agreement import differs, newest_of
from services.audit.record.digest import BEGIN, advance, event_digest, own_headers
from services.audit.record.event_row import DecodedMessage, row
from services.audit.record.log_reader import last_sequence, patiently, read
from services.audit.record.positions import Position, read_position
from services.audit.record.write import rows_between, store
from services.audit.store.engine import Connection, Engine
from shared.bus.core import Bus
from shared.log.envelope import Stored, Trusted, UnreadableEventError, authenticate_as
from shared.log.events.state import CheckpointSigned
from shared.log.stages import Stage
from shared.log.streams import OPS
from shared.log.subjects import checkpoint, parse_subject

Progress = Callable[[int], None]
Digests = Mapping[int, str]
_BEGIN: Final = Position()
_WIDEST: Final = 2**63 - 1


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

    def replay(stream: str, messages: list[Stored]) -> None:
        store(scratch, stream, messages)

    for stream in streams:
        verification = _StreamVerification(bus, stream, replay, verifier, found, progress)
        await verification.run(actual)
    with scratch.connect() as expected:
        found.findings += differences(actual, expected)
    found.unfinished = verifier.unfinished()
    return found


async def verify_after(
    bus: Bus,
    actual: Connection,
    checkpoints: Mapping[str, Position],
    verifier: LogVerifier,
    progress: Progress,
) -> Verification:
    """Verify what each stream has after a checkpoint of it that is known to be true.

    The recorded events are compared with the log, the rows that are derived from them are not.
    """
    found = Verification()

    for stream, begin in checkpoints.items():
        events = _RecordedEvents(actual, found, begin.sequence)
        verification = _StreamVerification(
            bus, stream, events.compare, verifier, found, progress, begin
        )
        await verification.run(actual)
        events.finish(stream)
        recorded = read_position(actual, stream)
        if recorded.sequence == verification.expected - 1:
            ends = f"positions {stream}", {"digest": recorded.digest}
            found.findings += row_differences(*ends, {"digest": verification.digest})
    found.unfinished = verifier.unfinished()
    return found


@dataclass
class _StreamVerification:
    """One stream after `begin`: verified, compared with its checkpoints, passed to `use`."""

    bus: Bus
    stream: str
    use: Callable[[str, list[Stored]], None]
    verifier: LogVerifier
    found: Verification
    progress: Progress
    begin: Position = _BEGIN
    digest: str = BEGIN
    expected: int = 1

    async def run(self, actual: Connection) -> None:
        """Verify up to the last event that the database has."""
        recorded = read_position(actual, self.stream).sequence
        end = await patiently(lambda: last_sequence(self.bus, self.stream))
        if recorded < self.begin.sequence:
            self.found.findings.append(
                f"{self.stream}: the database ends at {recorded}, before the checkpoint"
            )
        if end < max(recorded, self.begin.sequence):
            known = f"the database at {recorded}" if end < recorded else "before the checkpoint"
            self.found.findings.append(
                f"{self.stream}: the log ends at {end}, {known}; the log"
                " was replaced by an older one or truncated; see `scepstream audit reconcile`"
            )
        elif problem := await patiently(lambda: differs(self.bus, newest_of(actual, self.stream))):
            self.found.findings.append(
                f"{self.stream}: {problem}; the log was replaced by an older one; see `scepstream"
                " audit reconcile`"
            )
        last = min(recorded, end)
        self.digest, self.expected = self.begin.digest, self.begin.sequence + 1
        digests = await _checkpoints(self.bus, self.stream, self.verifier.keys.operators)
        async for batch in read(self.bus, self.stream, self.begin.sequence + 1, last):
            for message in batch:
                if self.begin.sequence and self.verifier.lacks(message.subject):
                    await self._reopen(message.subject)
                self._event(message, digests)
            self.use(self.stream, batch)
            self.found.events += len(batch)
            self.progress(len(batch))
        self._missing(last + 1)
        self.found.unrecorded[self.stream] = max(0, end - recorded)

    async def _reopen(self, subject: str) -> None:
        """Examine the events that an enrollment had at the checkpoint."""
        enrollment, _ = parse_subject(subject)
        places = [enrollment.subject(stage) for stage in Stage]
        found = [
            await patiently(partial(self.bus.get_last_or_leader, self.stream, place))
            for place in places
        ]
        earlier = [each for each in found if each and each.sequence <= self.begin.sequence]
        for message in sorted(earlier, key=lambda each: each.sequence):
            self._examine(message)

    def _event(self, message: Stored, digests: Digests) -> None:
        self._missing(message.sequence)
        self.expected = message.sequence + 1
        self._examine(message)
        self.digest = advance(self.digest, event_digest(message, own_headers(message)))
        signed = digests.get(message.sequence)
        if signed is None:
            return
        self.found.checkpoints += 1
        if signed != self.digest:
            place = f"{self.stream}#{message.sequence}"
            problem = "log digest does not match the signed checkpoint"
            self.found.findings.append(f"{place}: {problem}")

    def _examine(self, message: Stored) -> None:
        if problem := self.verifier.examine(message):
            place = f"{self.stream}#{message.sequence} {message.subject}"
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
    while stored := await patiently(partial(bus.get_next_or_leader, OPS, wildcard, position + 1)):
        position = stored.sequence
        yield stored


@dataclass
class _RecordedEvents:
    """The database's events of a stream, compared stretch by stretch with the log's."""

    actual: Connection
    found: Verification
    done: int

    def compare(self, stream: str, messages: Sequence[Stored]) -> None:
        """Compare the events up to the last of these, which are all that the log has of them."""
        if messages:
            self._compare(stream, messages, messages[-1].sequence)

    def finish(self, stream: str) -> None:
        """Report what the database has after the last of the log's events."""
        self._compare(stream, (), _WIDEST)

    def _compare(self, stream: str, messages: Sequence[Stored], last: int) -> None:
        expected = {m.sequence: row(stream, DecodedMessage.of(m)) for m in messages}
        ours = rows_between(self.actual, stream, self.done + 1, last)
        self.done = last
        for sequence in sorted(expected.keys() | ours.keys()):
            self.found.findings += _differences(
                f"events {stream} {sequence}", ours.get(sequence), expected.get(sequence)
            )


def _differences(
    place: str, ours: Mapping[str, object] | None, theirs: Mapping[str, object] | None
) -> Iterator[str]:
    if ours is None:
        yield f"{place}: row is missing"
    elif theirs is None:
        yield f"{place}: row is not derived from the log"
    else:
        yield from row_differences(place, ours, theirs)
