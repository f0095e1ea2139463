"""Context of operators' commands: they use the audit service's bus account and signing key."""

import asyncio
import getpass
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import structlog
import uvloop

from cli.output import failed
from services.audit.commands.context import CommandError, OperatorContext
from services.audit.record.agreement import ReplacedLogError
from services.audit.settings import read_settings
from services.audit.store.engine import DatabaseError
from shared.bus.core import Bus, BusError
from shared.bus.jetstream import JetStreamBus
from shared.config.load import SettingsError, load
from shared.config.sections import Configuration
from shared.log.envelope import UnreadableEventError

_CONNECT_SECONDS = 10.0
_BRIEF_SECONDS = 3.0
_MOST_NAME = 64
_T = TypeVar("_T")


def with_operator(config: Path, work: Callable[[OperatorContext], Awaitable[_T]]) -> _T:
    """Run an operator's command; print one line and exit with status 1 if it fails."""
    _silence()

    async def run() -> _T:
        async with _open(load(config)) as context:
            return await work(context)

    try:
        return uvloop.run(run())
    except (SettingsError, CommandError, ReplacedLogError) as error:
        reason = str(error)
    except BusError as error:
        reason = f"the event log is not reachable: {error}"
    except TimeoutError:
        reason = f"the event log is not reachable: no connection within {_CONNECT_SECONDS:.0f} s"
    except DatabaseError as error:
        reason = f"the database is unavailable: {type(error).__name__}"
    except UnreadableEventError as error:
        reason = f"the event log contains an invalid event: {error}"
    raise failed(reason)


def with_log(config: Path, work: Callable[[Bus], Awaitable[_T]]) -> _T | None:
    """Run what would like to read the log; None if it cannot be read from here and now."""
    _silence()

    async def run() -> _T:
        async with _open(load(config), _BRIEF_SECONDS) as context:
            return await work(context.bus)

    try:
        return uvloop.run(run())
    except (SettingsError, BusError, TimeoutError):
        return None


def _silence() -> None:
    """Print none of the bus's log lines, which are for services: one line says it here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@asynccontextmanager
async def _open(
    configuration: Configuration, seconds: float = _CONNECT_SECONDS
) -> AsyncIterator[OperatorContext]:
    settings = read_settings(configuration)
    async with asyncio.timeout(seconds):
        bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, "operator")
    try:
        yield OperatorContext.of(bus, settings, configuration, operator_name())
    finally:
        await bus.close()


def operator_name() -> str:
    """Return the login name of the user who runs the command."""
    try:
        return getpass.getuser()[:_MOST_NAME]
    except (KeyError, OSError):
        return "unknown"
