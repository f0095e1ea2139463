"""Reloading settings while a service runs: all or nothing; errors keep the old ones."""

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
    """Settings that can leave out invalid profiles; `left_out` maps their names to the errors."""

    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Source(Generic[S]):
    """The start-up settings, and how to read them again from the same sources."""

    first: S
    read: Callable[[], S]


class Reloader(Generic[S]):
    """Reads all settings, then swaps them in; on any error the old ones stay in effect.

    The old settings also stay if the new ones would leave out a profile that is served now.
    """

    def __init__(self, source: Source[S], apply: Callable[[S], Awaitable[None]]) -> None:
        """Start with `source.first` in effect; `apply` swaps in other settings."""
        self._source, self._apply, self._served = source, apply, source.first
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> str:
        """Reload the settings; return what is wrong in one sentence, "" if they are in effect."""
        async with self._one_at_a_time:
            try:
                await self._swap()
            except SettingsError as error:
                _log.error("reload_refused", detail=str(error))
                return str(error)
            except Exception as error:  # noqa: BLE001 - a bug must not block the next reload
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
        """Reload at each SIGHUP, forever."""
        while True:
            await hangup.wait()
            hangup.clear()
            await self.reload()


def _left_out(settings: object) -> Mapping[str, str]:
    """Return the profiles that cannot be served, and why; {} for settings without profiles."""
    return settings.left_out if isinstance(settings, Partial) else {}
