"""The orders in the issuer's consumer: to revoke, and to resume an attempt without outcome."""

from dataclasses import dataclass
from typing import Final

from services.issuer.revocation import OrderConsumer
from shared.log.envelope import Stored
from shared.runtime.resuming import ResumeConsumer

_RESUME: Final = "ops.resume."


@dataclass
class Orders:
    """Hands each order to its consumer."""

    revoking: OrderConsumer
    resuming: ResumeConsumer

    async def handle(self, stored: Stored) -> None:
        """Carry out an order."""
        await self._consumer(stored).handle(stored)

    async def give_up(self, stored: Stored) -> None:
        """End an order that cannot be carried out."""
        await self._consumer(stored).give_up(stored)

    def _consumer(self, stored: Stored) -> OrderConsumer | ResumeConsumer:
        return self.resuming if stored.subject.startswith(_RESUME) else self.revoking
