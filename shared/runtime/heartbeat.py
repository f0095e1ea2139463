"""A replica's heartbeat: what it reports, and the commands that it carries out at each beat."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.bus.core import Bus
from shared.log.envelope import Message
from shared.runtime.log_clock import LogClock
from shared.runtime.periodic import every


@dataclass(kw_only=True)
class HeartbeatLoop(ABC):
    """Carries out what was ordered, then reports, every few seconds and at each hint.

    Commands are heard of by a hint and looked for on the log, so that none is lost. `since` (Unix
    seconds) is when the settings of the start had been read.
    """

    bus: Bus
    name: str
    since: int
    log_clock: LogClock
    hint: str
    _hinted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Beat for ever."""
        await self.bus.on_hint("command.*", self.on_hint)
        await every(self.log_clock.pause, self.beat, name="heartbeat", wake=self._hinted)

    async def beat(self) -> None:
        """Beat once."""
        await self.obey()
        await self.log_clock.beat(self.message())

    def look_now(self) -> None:
        """Do not wait until the next beat: the settings were read again."""
        self._hinted.set()

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Look for a command; what the hint carries is not believed."""
        del payload, headers
        if subject == self.hint:
            self._hinted.set()

    @abstractmethod
    async def obey(self) -> None:
        """Carry out the commands that were given since the last beat."""

    @abstractmethod
    def message(self) -> Message:
        """Return the heartbeat; it leaves the log by itself soon after the replica stops."""
