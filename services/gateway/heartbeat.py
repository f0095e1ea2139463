"""Heartbeats of a gateway, and commands to reload its RA certificates."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import structlog

from services.gateway.settings import Settings
from shared.bus.log import report_forgery
from shared.log.envelope import Message, Stored, UnreadableEventError, authenticate_as, encode
from shared.log.events.commands import ReloadOrdered
from shared.log.events.state import GatewayHeartbeat
from shared.log.streams import OPS
from shared.log.subjects import ra_reload_command
from shared.runtime.heartbeat import HeartbeatLoop
from shared.runtime.live import Live
from shared.runtime.reload import Reloader

_log = structlog.get_logger()
_MARGIN_SECONDS: Final = 60
_MAX_ERROR: Final = 500


@dataclass(kw_only=True)
class GatewayHeartbeats(HeartbeatLoop):
    """Sends a gateway's heartbeats and reloads its RA certificates on command."""

    live: Live[Settings]
    reloader: Reloader[Any]
    hint: str = "command.ra"
    _command: int = 0
    _error: str = ""
    _begun: bool = False

    async def carry_out(self) -> None:
        """Carry out the newest reload command unless that was done already."""
        stored = await self.bus.get_last(OPS, ra_reload_command("*", "*"))
        if stored is not None and stored.sequence > self._command:
            await self._follow(stored)
        self._begun = True

    async def _follow(self, stored: Stored) -> None:
        # The settings read at start already include what a command from before then asks for.
        before = not self._begun and stored.seconds < self.since - _MARGIN_SECONDS
        try:
            authenticate_as(ReloadOrdered, stored, self.live.current.operators)
        except UnreadableEventError as error:
            report_forgery("command", stored.subject, error)
            self._error = "the reload command is not signed by a trusted operator key"
        else:
            self._error = "" if before else await self.reloader.reload()
        self._command = stored.sequence

    def message(self) -> Message:
        """Return the heartbeat, unsigned: gateways have no signing key."""
        profiles = self.live.current.profiles
        return encode(
            GatewayHeartbeat(
                name=self.name,
                since=self.since,
                ra={name: _digest(p.ra.certificates) for name, p in profiles.items()},
                command=self._command,
                error=self._error[:_MAX_ERROR],
            )
        )


def _digest(certificates: tuple[bytes, ...]) -> str:
    return hashlib.sha256(b"".join(certificates)).hexdigest()
