"""Settings read anew while a service runs: all or nothing, the old ones kept on any error."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from shared.process import log_failure
from shared.settings import SettingsError

_log = structlog.get_logger()
S = TypeVar("S")


@dataclass(frozen=True)
class Source(Generic[S]):
    """The settings of the start, and how to read them again from the same places."""

    first: S
    read: Callable[[], S]


async def reload_on(
    hangup: asyncio.Event, source: Source[S], apply: Callable[[S], Awaitable[None]]
) -> None:
    """At each SIGHUP read everything, then swap it in; on any error keep what was."""
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            await apply(await asyncio.to_thread(source.read))
        except SettingsError as error:
            _log.error("reload_refused", detail=str(error))
        except Exception as error:  # noqa: BLE001 - a bug must not make the next SIGHUP unheard
            log_failure("reload_failed", error)
        else:
            _log.info("reloaded")
