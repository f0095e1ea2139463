"""The issuer's commands: to revoke, and to resume an attempt without an outcome."""

from dataclasses import dataclass
from typing import Final

from services.issuer.revocation import RevocationConsumer
from shared.log.envelope import Stored
from shared.runtime.resuming import ResumeConsumer

_RESUME: Final = "ops.resume."


@dataclass
class Commands:
    """Passes each command to its consumer."""

    revoking: RevocationConsumer
    resuming: ResumeConsumer

    async def handle(self, stored: Stored) -> None:
        """Carry out a command."""
        await self._consumer(stored).handle(stored)

    async def give_up(self, stored: Stored) -> None:
        """End a command that cannot be carried out."""
        await self._consumer(stored).give_up(stored)

    def _consumer(self, stored: Stored) -> RevocationConsumer | ResumeConsumer:
        return self.resuming if stored.subject.startswith(_RESUME) else self.revoking
