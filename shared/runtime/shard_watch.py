"""Checks that a process can use every shard of the log before the epoch that needs it starts.

A shard that an epoch names needs a stream, consumers, and rights for the role in nats-server's
configuration. A service can create none of them. So each shard is read every few seconds, and
/readyz reports one that cannot be read as soon as its epoch is in effect or about to be. A shard's
workers are started when it can be read for the first time, so a reload before the bus was
provisioned needs no restart later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.bus.core import Bus, BusUnavailableError, NobodyListensError, NotAllowedError
from shared.bus.pull import MISSING
from shared.log.shards import SOON_SECONDS, Epoch, all_shards, begun
from shared.log.streams import enroll_stream
from shared.observe.logs import log_failure
from shared.runtime.periodic import every
from shared.runtime.process import now

_log = structlog.get_logger()
_LOOK_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0


Reconcile = Callable[[tuple[str, ...]], Awaitable[None]]


async def reconcile_nothing(_: tuple[str, ...]) -> None:
    """Do nothing: the default for roles without workers."""


@dataclass
class ShardWatch:
    """Checks the shards of `epochs`; `reconcile` starts and ends the workers for usable shards.

    `clock` returns Unix seconds, or raises `BusUnavailableError` before time was measured.
    """

    bus: Bus
    epochs: tuple[Epoch, ...]
    clock: Callable[[], float]
    reconcile: Reconcile = reconcile_nothing
    _wrong: dict[str, str] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)
    _stuck: str = "shards of the log: not checked yet"
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def problems(self) -> list[str]:
        """Return the unusable shards, in effect or soon, for /readyz; [] if all are usable."""
        if not begun(self.epochs, self._now()):
            return ["log.epochs: no epoch is in effect"]
        due = self.due()
        found = [problem for shard, problem in self._wrong.items() if shard in due]
        return [*found, self._stuck] if self._stuck else found

    def due(self) -> tuple[str, ...]:
        """Return the shards of all epochs that have started or start soon."""
        return all_shards(begun(self.epochs, self._now() + SOON_SECONDS))

    async def set_epochs(self, epochs: tuple[Epoch, ...]) -> None:
        """Replace the epochs and check their shards at once."""
        self.epochs = epochs
        await self.look()

    async def run(self) -> None:
        """Check the shards every few seconds, forever."""
        await every(self._pause, self.look, name="shards", retry=_RETRY_SECONDS)

    def _pause(self) -> float:
        return _RETRY_SECONDS if self._wrong or self._stuck else _LOOK_SECONDS

    async def look(self) -> None:
        """Read every shard once, and start or end workers so that they match the usable ones."""
        async with self._one_at_a_time:
            shards = all_shards(self.epochs)
            problems = await asyncio.gather(*(self._problem(shard) for shard in shards))
            self._note(dict(zip(shards, problems, strict=True)))
            usable = [s for s in self.due() if s in self._open or s not in self._wrong]
            try:
                await self.reconcile(tuple(usable))
            except Exception as error:  # noqa: BLE001 - a bug must not end the watch silently
                log_failure("shards_failed", error)
                self._stuck = f"workers of a shard cannot be started: {type(error).__name__}"
            else:
                self._stuck = ""

    async def _problem(self, shard: str) -> str:
        """Return why a shard cannot be read, "" if it can; the last result if the bus is down."""
        nothing = f"enroll.{shard}.none.none.none.0.request"
        try:
            await self.bus.get_last(enroll_stream(shard), nothing)
        except NotAllowedError:
            return (
                f"permission for shard {shard} {MISSING}: print nats-server's configuration with "
                f"`scepstream provision server --shard {shard}` and its other shards, and reload it"
            )
        except NobodyListensError:
            return f"the stream of shard {shard} {MISSING}: run `scepstream provision streams`"
        except BusUnavailableError:
            return self._wrong.get(shard, "")
        self._open.add(shard)
        return ""

    def _note(self, found: dict[str, str]) -> None:
        due = self.due()
        for shard, problem in found.items():
            if problem and problem != self._wrong.get(shard):
                log = _log.error if shard in due else _log.warning
                log("shard_unusable", shard=shard, detail=problem)
            elif not problem and shard in self._wrong:
                _log.info("shard_ready", shard=shard)
        self._wrong = {shard: problem for shard, problem in found.items() if problem}

    def _now(self) -> float:
        """Return the log's time, or the machine's until that is measured."""
        try:
            return self.clock()
        except BusUnavailableError:
            return now()
