"""A running gateway says that it is there, and reads RA certificates anew when operators say so."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from services.gateway.settings import Settings
from shared.bus.core import Bus
from shared.bus.log import report_forgery
from shared.log.envelope import Stored, UnreadableEventError, authenticate_as, encode
from shared.log.events.commands import ReloadOrdered
from shared.log.events.state import GatewayHeartbeat
from shared.log.streams import OPS
from shared.log.subjects import ra_reload_command
from shared.runtime.log_clock import LogClock
from shared.runtime.periodic import every
from shared.runtime.reload import Reloader

_log = structlog.get_logger()
_MARGIN_SECONDS: Final = 60
_MAX_ERROR: Final = 500


@dataclass
class Presence:
    """`since` (Unix seconds) is when the settings of the start had been read."""

    bus: Bus
    settings: Settings
    name: str
    since: int
    reloader: Reloader[Any]
    clock: LogClock
    _order: int = 0
    _error: str = ""
    _begun: bool = False
    _hinted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Say and look, for ever."""
        await every(self.clock.pause, self.look, name="presence", wake=self._hinted)

    def on_hint(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """A hint only says "look": what it carries is not believed."""
        del payload, headers
        if subject == "command.ra":
            self._hinted.set()

    async def look(self) -> None:
        """Follow the last order, if there is one that was not; then say what is so."""
        stored = await self.bus.get_last(OPS, ra_reload_command("*", "*"))
        if stored is not None and stored.sequence > self._order:
            await self._follow(stored)
        self._begun = True
        await self._say()

    async def _follow(self, stored: Stored) -> None:
        # Of the start's own settings: what was ordered before them is in them.
        before = not self._begun and stored.seconds < self.since - _MARGIN_SECONDS
        try:
            authenticate_as(ReloadOrdered, stored, self.settings.operators)
        except UnreadableEventError as error:
            report_forgery("command", stored.subject, error)
            self._error = "the order is by no operator that this gateway knows"
        else:
            self._error = "" if before else await self.reloader.reload()
        self._order = stored.sequence

    async def _say(self) -> None:
        """Presence, which ends by itself soon after its gateway does."""
        seen = GatewayHeartbeat(
            name=self.name,
            since=self.since,
            ra={name: _digest(p.ra.certificates) for name, p in self.settings.profiles.items()},
            command=self._order,
            error=self._error[:_MAX_ERROR],
        )
        await self.clock.beat(encode(seen))


def _digest(certificates: tuple[bytes, ...]) -> str:
    return hashlib.sha256(b"".join(certificates)).hexdigest()
