"""The issuer's commands: to revoke, to settle an orphan, to resume an attempt without outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from services.issuer.orphans import OrphanConsumer
from services.issuer.revocation import RevocationConsumer
from shared.log.envelope import Stored
from shared.runtime.resuming import ResumeConsumer

_RESUME: Final = "resume"
_ORPHAN: Final = "orphan"


class Consumer(Protocol):
    """Carries out one kind of command."""

    async def handle(self, stored: Stored) -> None:
        """Carry out a command."""

    async def give_up(self, stored: Stored) -> bool | None:
        """End a command that cannot be carried out; return True if it was carried out after all."""


@dataclass
class Commands:
    """Passes each command to its consumer."""

    revoking: RevocationConsumer
    orphans: OrphanConsumer
    resuming: ResumeConsumer

    async def handle(self, stored: Stored) -> None:
        """Carry out a command."""
        await self._consumer(stored).handle(stored)

    async def give_up(self, stored: Stored) -> bool | None:
        """End a command that cannot be carried out."""
        return await self._consumer(stored).give_up(stored)

    def _consumer(self, stored: Stored) -> Consumer:
        found: Mapping[str, Consumer] = {_RESUME: self.resuming, _ORPHAN: self.orphans}
        return found.get(stored.subject.split(".")[1], self.revoking)
