"""Readiness of the audit service: bus, database (queried every few seconds), recorders."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, select

from services.audit.record.consumer import StreamRecorder
from services.audit.store.tables import positions
from shared.bus.core import Bus
from shared.observe.logs import log_failure
from shared.runtime.periodic import every

_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 3.0


@dataclass
class Readiness:
    """The readiness of the service, as of the last look.

    `clock` returns the problems of the clock and the shards; `seconds` is how long a look waits for
    the database.
    """

    bus: Bus
    engine: Engine
    recorders: Sequence[StreamRecorder] = ()
    clock: Callable[[], list[str]] = list
    seconds: float = _ANSWER_SECONDS
    _database: bool = True
    _asking: "asyncio.Future[None] | None" = None

    def missing(self) -> str:
        """Return what is missing, for /readyz; "" if nothing is."""
        found = [*self.bus.problems(), *self.clock()]
        found += [] if self._database else ["database"]
        return ", ".join([*found, *self._records()])

    def _records(self) -> list[str]:
        return [f"recorder of {r.stream}: {r.problem}" for r in self.recorders if r.problem]

    async def run(self) -> None:
        """Look every few seconds, forever."""
        await every(_SECONDS, self.look, name="readiness")

    def database_away(self) -> bool:
        """Return whether the last query of the database failed or timed out."""
        return not self._database

    async def look(self) -> None:
        """Run a minimal query; while one is unanswered, no other is sent."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(asyncio.to_thread(self._ask))
        await asyncio.wait((self._asking,), timeout=self.seconds)
        error: BaseException | None = TimeoutError()
        if self._asking.done():
            error, self._asking = self._asking.exception(), None
        if error is not None and self._database:
            log_failure("database_unavailable", error)
        self._database = error is None

    def _ask(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(select(positions.c.sequence).limit(1)).first()
