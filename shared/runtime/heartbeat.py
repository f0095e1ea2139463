"""A replica's heartbeat loop: carry out pending commands, then report."""

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
    """Carries out commands and then reports, every few seconds and at each hint.

    A hint announces a command, and the log is searched for commands at each beat, so that none is
    lost. `since` (Unix seconds) is when the start-up settings had been read. `hint` is the subject
    of the hints that concern this replica.
    """

    bus: Bus
    name: str
    since: int
    log_clock: LogClock
    hint: str
    _hinted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Send heartbeats forever."""
        await self.bus.on_hint("command.*", self.on_hint)
        await every(self.log_clock.pause, self.beat, name="heartbeat", wake=self._hinted)

    async def beat(self) -> None:
        """Carry out pending commands and send one heartbeat."""
        await self.carry_out()
        await self.log_clock.beat(self.message())

    def look_now(self) -> None:
        """Send the next heartbeat at once, because the settings were reloaded."""
        self._hinted.set()

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Look for commands in the log at once; the hint's content is not trusted."""
        del payload, headers
        if subject == self.hint:
            self._hinted.set()

    @abstractmethod
    async def carry_out(self) -> None:
        """Carry out the commands issued since the last beat."""

    @abstractmethod
    def message(self) -> Message:
        """Return the heartbeat event; it expires soon after the replica stops."""
