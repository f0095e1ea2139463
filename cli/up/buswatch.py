"""Repair the bus when services report a stream that rejects appends, or a missing part.

After the disk was full, a stream rejects appends until nats-server is restarted, even when there
is room again (docs/decisions/0033). No service may create a stream or a consumer; `up` has the
provisioner's key, which may.
"""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.up.children import Notice, say
from shared.bus.health import TAKES_NO_APPENDS
from shared.bus.pull import MISSING

_LOOK_SECONDS: Final = 3.0
# A restart does not help when a leader changes or the disk is busy, which pass by themselves.
_PATIENCE_SECONDS: Final = 10.0
_FIRST_GAP_SECONDS: Final = 30.0
_MAX_GAP_SECONDS: Final = 600.0
_ROOM_BYTES: Final = 64 * 1024 * 1024


@dataclass
class BusWatch:
    """Acts on the services' readiness reports, with growing gaps between restarts.

    `reports` returns what each service says is missing; `store` is the log's directory.
    """

    store: Path
    reports: Callable[[], Awaitable[list[str]]]
    restart: Callable[[], Awaitable[None]]
    provision: Callable[[], Awaitable[None]]
    notice: Notice = say
    clock: Callable[[], float] = time.monotonic
    _since: float | None = None
    _not_before: float = 0.0
    _gap: float = _FIRST_GAP_SECONDS
    _said: str = ""

    async def run(self) -> None:
        """Check the reports periodically until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - only a stop ends supervision
                self._say(f"bus check failed: {error}")

    async def look(self) -> None:
        """Fetch the services' reports once and act on them."""
        reports = await self.reports()
        if any(TAKES_NO_APPENDS in report for report in reports):
            await self._heal()
        else:
            self._since = None
            if self.clock() > self._not_before:
                self._gap, self._said = _FIRST_GAP_SECONDS, ""
        if any(MISSING in report for report in reports):
            self._say("a stream or consumer is missing: creating it")
            await self.provision()

    async def _heal(self) -> None:
        now = self.clock()
        if self._since is None:
            self._since = now
        if now - self._since < _PATIENCE_SECONDS or now < self._not_before:
            return
        free = shutil.disk_usage(self.store).free
        if free < _ROOM_BYTES:
            self._say(f"the log rejects appends: {free >> 20} MiB are free at {self.store}")
            return
        self._say("the log rejects appends although the disk has room: restarting nats-server")
        self._since, self._not_before = None, now + self._gap
        self._gap = min(self._gap * 2, _MAX_GAP_SECONDS)
        await self.restart()

    def _say(self, text: str) -> None:
        if text != self._said:
            self.notice(text)
        self._said = text
