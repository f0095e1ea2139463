"""Commands to resume attempts whose message no consumer delivers any more.

Theory of operation. A role's consumer may skip a message for good (a damaged block, a consumer that
was recreated), and then nothing takes the attempt to its end. The sweeper finds such attempts in
the read model: by index, and a bounded number of each waiting state per pass (`_look`). The pure
choice of `overdue.py` keeps those that a younger attempt has overtaken and whose next command is
due. The log decides about each of them (`_missing`): a model that is behind commands nothing. Every
replica may sweep, since a command's subject holds one message. See
docs/decisions/0034-the-log-decides-what-is-left-to-do.md.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.audit.commands.overdue import (
    MISSING,
    PASSED,
    Overdue,
    Patience,
    Queue,
    Waiting,
    choose,
    overtaken,
    queue_of,
)
from services.audit.query.waiting import Place, list_waiting, newest_requests, ordered_at
from services.audit.store.engine import Connection, Engine
from shared.bus.core import Bus
from shared.bus.log import Log
from shared.log.enrollment import State
from shared.log.envelope import (
    NANOSECONDS,
    EventSigner,
    Trusted,
    UnreadableEventError,
    authenticate,
)
from shared.log.events.commands import ResumeOrdered
from shared.log.events.enrollment import EnrollmentApproved
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, parse_prefix, resume_command
from shared.observe.metrics import RESUMES
from shared.runtime.periodic import every
from shared.runtime.resuming import leading

_log = structlog.get_logger()
_ROWS: Final = 100  # of each state per pass
_NEWEST: Final = 200  # of each state of a profile: they include every shard that moves
_NAME: Final = "scepstream"  # the operator of the commands


@dataclass
class Sweeper:
    """Sweeps from time to time; `clock` returns the log's time in Unix seconds."""

    bus: Bus
    engine: Engine
    signer: EventSigner
    validators: Trusted
    clock: Callable[[], float]
    patience: Patience = field(default_factory=Patience)
    _places: dict[State, Place] = field(default_factory=dict)
    _lost: set[EnrollmentId] = field(default_factory=set)

    async def run(self) -> None:
        """Make a pass every `patience.pause` seconds; by the first the model may have caught up."""
        for stage in PASSED:
            for give_up in ("false", "true"):
                RESUMES.labels(stage, give_up)
        pause = self.patience.pause
        await every(pause, self.sweep, name="sweep", delay=pause)

    async def sweep(self) -> int:
        """Make one pass; return how many commands it wrote."""
        now = int(self.clock() * NANOSECONDS)
        written = 0
        for each in await asyncio.to_thread(self._look, now):
            written += await self._append_command(each)
        return written

    def _look(self, now: int) -> list[Overdue]:
        """Read the next attempts that wait, and choose the commands that are due."""
        with self.engine.connect() as connection:
            waiting = [w for state in MISSING for w in self._stretch(connection, state, now)]
            found = overtaken(waiting, _newest(connection, waiting), self.patience)
            ordered = _ordered(connection, [w.enrollment for w in found], self.patience)
        return choose(found, ordered, now, self.patience)

    def _stretch(self, connection: Connection, state: State, now: int) -> Iterable[Waiting]:
        """Read the oldest attempts of a state after the place where the last pass stopped."""
        before = now - int(self.patience.delays[0] * NANOSECONDS)
        rows = list_waiting(connection, state, before, self._places.pop(state, None), _ROWS)
        if len(rows) == _ROWS:
            self._places[state] = rows[-1][0], rows[-1][1]
        for _, enrollment, since in rows:
            yield Waiting(parse_prefix(enrollment), state, since)

    async def _append_command(self, overdue: Overdue) -> bool:
        """Write a command if the log confirms that it is needed; return whether it is new."""
        enrollment = overdue.enrollment
        stage = await self._missing(overdue)
        if stage is None:
            return False
        event = ResumeOrdered(
            enrollment=enrollment.prefix(),
            stage=stage,
            number=overdue.number,
            give_up=overdue.give_up,
            operator=_NAME,
        )
        subject = resume_command(enrollment, overdue.number)
        if not await Log(self.bus, self.signer).append(subject, event):
            return False  # another replica wrote it
        RESUMES.labels(stage, str(overdue.give_up).lower()).inc()
        _log.warning(
            "resume_ordered",
            enrollment=enrollment.prefix(),
            stage=stage,
            number=overdue.number,
            give_up=overdue.give_up,
        )
        return True

    async def _missing(self, overdue: Overdue) -> Stage | None:
        """Return the stage that the log lacks of an attempt; None if no command would help.

        The log may have more than the model, which then catches up, or less, if it lost a verdict.
        """
        enrollment = overdue.enrollment
        stream = enroll_stream(enrollment.shard)
        verdict = await self.bus.get_last_or_leader(stream, enrollment.subject(Stage.VERDICT))
        if verdict is None:
            if await leading(self.bus, enrollment, Stage.VERDICT) is not None:
                return Stage.VERDICT
            await self._report_lost(enrollment)
            return None
        if overdue.stage is Stage.VERDICT or await self._goes_on(overdue):
            return None
        if overdue.stage is Stage.CONFIRMATION:
            return Stage.CONFIRMATION
        try:
            event = authenticate(verdict, self.validators, Stage.VERDICT)
        except UnreadableEventError:
            return None  # the issuer reports it when it is delivered
        return Stage.OUTCOME if isinstance(event, EnrollmentApproved) else None

    async def _goes_on(self, overdue: Overdue) -> bool:
        """Return whether the log has the missing stage, or one that a role continues from.

        Once there is an order, the issuer polls the CA until there is an outcome.
        """
        enrollment, stage = overdue.enrollment, overdue.stage
        stream = enroll_stream(enrollment.shard)
        stages = (stage, Stage.ORDER) if stage is Stage.OUTCOME else (stage,)
        found = [await self.bus.get_last_or_leader(stream, enrollment.subject(s)) for s in stages]
        return any(each is not None for each in found)

    async def _report_lost(self, enrollment: EnrollmentId) -> None:
        """Log once that an attempt's request is gone; a held attempt still has it."""
        stream, place = enroll_stream(enrollment.shard), enrollment.subject(Stage.REQUEST)
        if enrollment in self._lost or await self.bus.get_last_or_leader(stream, place) is not None:
            return
        if len(self._lost) >= _ROWS:
            self._lost.clear()
        self._lost.add(enrollment)
        _log.error("request_missing", enrollment=enrollment.prefix())


def _newest(connection: Connection, waiting: Collection[Waiting]) -> dict[Queue, int]:
    """Return by queue when the youngest attempt that passed it was requested (Unix ns).

    Only for queues that an attempt waits in.
    """
    needed = {
        (w.enrollment.profile, stage, state)
        for w in waiting
        for stage in (MISSING[w.state],)
        for state in PASSED[stage]
    }
    newest: dict[Queue, int] = {}
    for profile, stage, state in needed:
        for requested_at, enrollment in newest_requests(connection, profile, state, _NEWEST):
            queue = queue_of(parse_prefix(enrollment), stage)
            newest[queue] = max(newest.get(queue, 0), requested_at)
    return newest


def _ordered(
    connection: Connection, found: Collection[EnrollmentId], patience: Patience
) -> dict[EnrollmentId, dict[int, int]]:
    """Return when each command for these attempts was recorded (Unix ns), by its number."""
    places = {
        resume_command(enrollment, number): (enrollment, number)
        for enrollment in found
        for number in range(len(patience.delays))
    }
    times: dict[EnrollmentId, dict[int, int]] = {}
    for subject, at in ordered_at(connection, places).items():
        enrollment, number = places[subject]
        times.setdefault(enrollment, {})[number] = at
    return times
