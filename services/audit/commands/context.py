"""The context of operators' commands: bus, signing key, trusted keys, configuration."""

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
    """Raised if a command cannot be executed; the message is one sentence for the operator."""


class MalformedError(CommandError):
    """Raised for a command with a value that can never be valid."""


class NotFoundError(CommandError):
    """Raised for a command about something that does not exist."""


class ConflictError(CommandError):
    """Raised for a command that the present state or configuration does not allow."""


@dataclass(frozen=True)
class OperatorContext:
    """One operator's context for commands; `operator` is the name that the log records."""

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
        """Build the context of an operator."""
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
        """The key that operators' commands are trusted by: the audit service's own."""
        return {self.settings.signer.id: self.settings.signer.key.public_key()}

    async def append(self, subject: str, event: Signed, after: Stored | None = None) -> bool:
        """Sign an event for a subject and append it; return whether it was the first there.

        It continues the trace of the message `after`.
        """
        return await Log(self.bus, self.settings.signer).append(subject, event, after)

    async def heartbeats(self, role: Role) -> AsyncIterator[Stored]:
        """Yield the heartbeats of a role's replicas from the last seconds.

        They are not authenticated: the caller does that.
        """
        wildcard, position = replica_subject(role, "*"), 0
        while stored := await self.bus.get_next(REPLICAS, wildcard, position + 1):
            position = stored.sequence
            yield stored

    async def until(self, stream: str, subject: str, seconds: float) -> Stored | None:
        """Return the message on a subject as soon as there is one; None after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            if (stored := await self.bus.get_last(stream, subject)) is not None:
                return stored
            await asyncio.sleep(0.1)
        return None
