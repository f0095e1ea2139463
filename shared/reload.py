"""Settings read anew while a service runs: all or nothing, the old ones kept on any error."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import structlog

from shared.process import log_failure
from shared.settings import SettingsError

_log = structlog.get_logger()
S = TypeVar("S")


@runtime_checkable
class Partial(Protocol):
    """Settings that some profiles may be left out of: name to what is wrong."""

    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Source(Generic[S]):
    """The settings of the start, and how to read them again from the same places."""

    first: S
    read: Callable[[], S]


async def reload_on(
    hangup: asyncio.Event, source: Source[S], apply: Callable[[S], Awaitable[None]]
) -> None:
    """At each SIGHUP read everything, then swap it in; on any error keep what was.

    Nor is a profile that is served left out by reading anew: then, too, all stays as it was.
    """
    served = source.first
    while True:
        await hangup.wait()
        hangup.clear()
        try:
            found = await asyncio.to_thread(source.read)
            for name in _left_out(found).keys() - _left_out(served).keys():
                raise SettingsError(_left_out(found)[name])  # noqa: TRY301 - as if `read` had
            await apply(found)
            served = found
        except SettingsError as error:
            _log.error("reload_refused", detail=str(error))
        except Exception as error:  # noqa: BLE001 - a bug must not make the next SIGHUP unheard
            log_failure("reload_failed", error)
        else:
            _log.info("reloaded")


def _left_out(settings: object) -> Mapping[str, str]:
    """The profiles that cannot be served, and why; some services have none."""
    return settings.left_out if isinstance(settings, Partial) else {}
