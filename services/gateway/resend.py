"""Repeats a failed append in the background, to notice when the log accepts appends again.

A gateway that is not ready gets no requests, so it has nothing else to test an append with. The
device may have gone by then; its retry finds the request on the log and continues from there.
See docs/decisions/0033-appends-tell-whether-the-log-works.md.
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
    """Keeps the last request whose append failed until the log has it.

    `seconds` is the pause before each try.
    """

    bus: Bus
    seconds: float = _SECONDS
    _kept: tuple[str, Message] | None = None
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def keep(self, subject: str, message: Message) -> None:
        """Keep this request for resending and forget the one before."""
        self._kept = subject, message
        self._arrived.set()

    async def run(self) -> None:
        """Resend the kept request until the log has it; run until cancelled."""
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
        except Exception as error:  # noqa: BLE001 - what can never be stored cannot test the log
            log_failure("resend_failed", error)
        return True
