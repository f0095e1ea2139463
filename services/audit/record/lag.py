"""Backlog of the services, measured from the read model: it covers stuck and absent ones too."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from services.audit.record.log_reader import last_sequence
from services.audit.record.write import position
from services.audit.store.tables import enrollments, orphans
from shared.bus.core import Bus
from shared.log.enrollment import State
from shared.log.envelope import NANOSECONDS
from shared.log.roles import Role
from shared.observe.logs import log_failure
from shared.observe.metrics import BUS_LAG, OLDEST_WAITING, ORPHANS_OPEN, WAITING
from shared.runtime.periodic import every

_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 10.0
_DAY_NANOSECONDS: Final = 86400 * 1_000_000_000
# With more events to record than this, the read model cannot tell what is waiting now.
_KEEPS_UP: Final = 10_000
# By state: the role that is waited for, and when the wait began.
_WAITS: Final[Mapping[State, tuple[Role, ColumnElement[Any]]]] = {
    State.REQUESTED: (Role.VALIDATOR, enrollments.c.requested_at),
    State.DECIDED: (Role.VALIDATOR, enrollments.c.decided_at),
    State.APPROVED: (Role.ISSUER, enrollments.c.verdict_at),
}

Waiting = Mapping[Role, tuple[int, int | None]]


@dataclass
class Backlog:
    """Sets the backlog gauges; `clock` returns Unix seconds."""

    bus: Bus
    engine: Engine
    streams: Sequence[str]
    clock: Callable[[], float]
    _away: bool = False

    async def run(self) -> None:
        """Measure every few seconds, forever."""
        await every(_SECONDS, self._look_or_forget, name="backlog")

    async def _look_or_forget(self) -> None:
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self.look()
            self._away = False
        except Exception as error:  # noqa: BLE001 - log and database may be back at the next look
            _forget()
            self._forget_lag()
            if not self._away:
                log_failure("backlog_unknown", error)
            self._away = True

    def _forget_lag(self) -> None:
        """Remove the lag gauges: an old value would look healthy when nothing can be measured."""
        for stream in self.streams:
            with contextlib.suppress(KeyError):
                BUS_LAG.remove(stream, Role.AUDIT)

    async def look(self) -> None:
        """Measure once: this service's lag behind the log, the others' from the read model."""
        behind = [await self._measure_lag(stream) for stream in self.streams]
        if max(behind, default=0) > _KEEPS_UP:
            _forget()
            return
        found, orphans = await asyncio.to_thread(self._count)
        ORPHANS_OPEN.set(orphans)
        for role, (count, since) in found.items():
            WAITING.labels(role).set(count)
            age = self.clock() - since / NANOSECONDS if since is not None else 0.0
            OLDEST_WAITING.labels(role).set(max(0.0, age))

    async def _measure_lag(self, stream: str) -> int:
        newest = await last_sequence(self.bus, stream)
        behind = max(0, newest - await asyncio.to_thread(position, self.engine, stream))
        BUS_LAG.labels(stream, Role.AUDIT).set(behind)
        return behind

    def _count(self) -> tuple[Waiting, int]:
        since = int(self.clock() * NANOSECONDS) - _DAY_NANOSECONDS
        with self.engine.connect() as connection:
            open_orphans = select(func.count()).where(orphans.c.settled_at == 0)
            return waiting(connection, since), connection.execute(open_orphans).scalar_one()


def _forget() -> None:
    """Set the gauges to NaN: an old value could hide a standstill, or keep an alert firing."""
    for role, _ in _WAITS.values():
        WAITING.labels(role).set(math.nan)
        OLDEST_WAITING.labels(role).set(math.nan)
    ORPHANS_OPEN.set(math.nan)


def waiting(connection: Connection, since: int) -> Waiting:
    """Return by role how many enrollments wait for it, and since when the first does.

    Only waits that began at or after `since` count. Times are Unix nanoseconds.
    """
    found: dict[Role, tuple[int, int | None]] = {}
    for state, (role, column) in _WAITS.items():
        query = select(func.count(), func.min(column)).where(
            enrollments.c.state == state, column >= since
        )
        count, first = connection.execute(query).one()
        before, earliest = found.get(role, (0, None))
        times = [time for time in (first, earliest) if time is not None]
        found[role] = before + count, min(times, default=None)
    return found
