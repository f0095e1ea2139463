"""Settings reloaded while a service runs: all or nothing, the old ones kept on any error."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import structlog

from shared.config.load import SettingsError
from shared.observe.logs import log_failure

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


class Reloader(Generic[S]):
    """Reads everything, then swaps it in; on any error keeps what was.

    Nor does a reload leave out a profile that is served: then, too, all stays as it was.
    """

    def __init__(self, source: Source[S], apply: Callable[[S], Awaitable[None]]) -> None:
        """Take the settings of the start, and what swaps others in."""
        self._source, self._apply, self._served = source, apply, source.first
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> str:
        """What is wrong, one sentence; "" where all was read and is in effect."""
        async with self._one_at_a_time:
            try:
                await self._swap()
            except SettingsError as error:
                _log.error("reload_refused", detail=str(error))
                return str(error)
            except Exception as error:  # noqa: BLE001 - a bug must not make the next order unheard
                log_failure("reload_failed", error)
                return f"cannot be read: {type(error).__name__}"
        _log.info("reloaded")
        return ""

    async def _swap(self) -> None:
        found = await asyncio.to_thread(self._source.read)
        for name in _left_out(found).keys() - _left_out(self._served).keys():
            raise SettingsError(_left_out(found)[name])
        await self._apply(found)
        self._served = found

    async def on(self, hangup: asyncio.Event) -> None:
        """At each SIGHUP, for ever."""
        while True:
            await hangup.wait()
            hangup.clear()
            await self.reload()


def _left_out(settings: object) -> Mapping[str, str]:
    """The profiles that cannot be served, and why; some services have none."""
    return settings.left_out if isinstance(settings, Partial) else {}
