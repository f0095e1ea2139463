"""Where operators' commands are appended: bus, signing key, trusted keys, database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.audit.settings import Settings
from shared.bus.core import Bus
from shared.bus.log import Log
from shared.config.keys import read_trusted
from shared.config.sections import Configuration
from shared.log.envelope import Stored, Trusted
from shared.log.events.commands import CommandAnswered, Ordered
from shared.log.events.enrollment import HoldDecided
from shared.log.roles import Role
from shared.log.streams import REPLICAS
from shared.log.subjects import replica_subject

Signed = Ordered | HoldDecided | CommandAnswered


class CommandError(Exception):
    """Raised where an order cannot be given; the message is the one sentence to read."""


class NotFoundError(CommandError):
    """Raised for an order about what does not exist."""


class ConflictError(CommandError):
    """Raised for an order about what is in no state for it any more."""


@dataclass(frozen=True)
class OperatorContext:
    """One operator's desk; `operator` is who gives the commands."""

    bus: Bus
    settings: Settings
    configuration: Configuration
    validators: Trusted
    issuers: Trusted
    operator: str

    @classmethod
    def of(
        cls, bus: Bus, settings: Settings, configuration: Configuration, operator: str
    ) -> "OperatorContext":
        """The desk of this operator."""
        trust = configuration.trust
        return cls(
            bus,
            settings,
            configuration,
            read_trusted(map(configuration.path, trust.validator_keys)),
            read_trusted(map(configuration.path, trust.issuer_keys)),
            operator,
        )

    @property
    def operators(self) -> Trusted:
        """Whose commands these are: the auditor's own key."""
        return {self.settings.signer.id: self.settings.signer.key.public_key()}

    async def append(self, subject: str, event: Signed, after: Stored | None = None) -> bool:
        """Sign it for this subject and store it; whether it was the first there.

        What comes of it is in the trace of the message that it comes `after`.
        """
        return await Log(self.bus, self.settings.signer).append(subject, event, after)

    async def presences(self, role: Role) -> AsyncIterator[Stored]:
        """What replicas of a role said within the last seconds; who asks checks it."""
        wildcard, position = replica_subject(role, "*"), 0
        while stored := await self.bus.get_next(REPLICAS, wildcard, position + 1):
            position = stored.sequence
            yield stored

    async def until(self, stream: str, subject: str, seconds: float) -> Stored | None:
        """The message on a subject, as soon as it is there."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            if (stored := await self.bus.get_last(stream, subject)) is not None:
                return stored
            await asyncio.sleep(0.1)
        return None
