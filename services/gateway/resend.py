"""Sends a request that the log did not take again, so that it is known when appends work again.

A gateway that is not ready gets no requests, so it has nothing else to try an append with. The
device may well have gone: its retry finds the request on the log and goes on from it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from shared.bus.core import Bus, BusUnavailableError
from shared.bus.log import append_first
from shared.log.envelope import Message
from shared.observe.logs import log_failure

_SECONDS: Final = 2.0


@dataclass
class Resender:
    """Keeps the last request that was not taken, until it is, or stands on the log already."""

    bus: Bus
    seconds: float = _SECONDS
    _kept: tuple[str, Message] | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, subject: str, message: Message) -> None:
        """Send this one again, in place of one kept before."""
        self._kept = subject, message
        self._arrived.set()

    async def run(self) -> None:
        """Send what is kept, for ever."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(self.seconds)
            kept = self._kept
            if (kept is None or await self._taken(*kept)) and self._kept is kept:
                self._kept = None
                self._arrived.clear()

    async def _taken(self, subject: str, message: Message) -> bool:
        try:
            await append_first(self.bus, subject, message)
        except BusUnavailableError:
            return False
        except Exception as error:  # noqa: BLE001 - what can never be stored is no probe
            log_failure("resend_failed", error)
        return True
