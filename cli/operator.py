"""What operators' commands share: the audit service's place on the bus, and its signature."""

import asyncio
import getpass
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
import typer

from services.audit.settings import Settings, read_settings
from shared.bus.core import AppendConflictError, BusError
from shared.bus.jetstream import JetStreamBus
from shared.keys import read_trusted
from shared.sections import Configuration
from shared.settings import SettingsError, load
from shared.stored import Message, Stored, Trusted, UnreadableEventError

_CONNECT_SECONDS = 10.0
_T = TypeVar("_T")


class OrderError(Exception):
    """Raised where an order cannot be given; the message is the one sentence to read."""


@dataclass(frozen=True)
class Office:
    """The bus as the audit service sees it, its key, and whom it believes."""

    bus: JetStreamBus
    settings: Settings
    configuration: Configuration
    validators: Trusted
    issuers: Trusted

    async def append(self, subject: str, message: Message) -> bool:
        """Whether it was the first on its subject."""
        try:
            await self.bus.append(subject, message)
        except AppendConflictError:
            return False
        return True

    async def until(self, stream: str, subject: str, seconds: float) -> Stored | None:
        """The message on a subject, as soon as it is there."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            if (stored := await self.bus.get_last(stream, subject)) is not None:
                return stored
            await asyncio.sleep(0.1)
        return None


def in_office(config: Path, work: Callable[[Office], Awaitable[_T]]) -> _T:
    """Run an operator's command; one sentence and exit status 1 where it cannot be."""
    # What the bus logs is for services: here one sentence says it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    async def run() -> _T:
        async with _open(load(config)) as office:
            return await work(office)

    try:
        return asyncio.run(run())
    except (SettingsError, OrderError) as error:
        reason = str(error)
    except (BusError, TimeoutError):
        reason = "the event log is not reachable"
    except UnreadableEventError as error:
        reason = f"the event log holds what it should not: {error}"
    print(reason, file=sys.stderr)
    raise typer.Exit(1)


@asynccontextmanager
async def _open(configuration: Configuration) -> AsyncIterator[Office]:
    settings = read_settings(configuration)
    trust = configuration.trust
    async with asyncio.timeout(_CONNECT_SECONDS):
        bus = await JetStreamBus.connect(settings.bus_url, settings.nkey_seed, "operator")
    try:
        yield Office(
            bus,
            settings,
            configuration,
            read_trusted(map(configuration.path, trust.validator_keys)),
            read_trusted(map(configuration.path, trust.issuer_keys)),
        )
    finally:
        await bus.close()


def operator_name() -> str:
    """Who gives an order, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
