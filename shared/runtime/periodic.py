"""Periodic work for as long as a service runs."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import structlog

from shared.bus.core import BusUnavailableError
from shared.observe.logs import log_failure

_log = structlog.get_logger()
_SHOWN = 100
_K = TypeVar("_K")


async def every(
    seconds: float | Callable[[], float],
    work: Callable[[], Awaitable[object]],
    *,
    name: str,
    wake: asyncio.Event | None = None,
    retry: float | None = None,
    delay: float = 0.0,
) -> None:
    """Repeat `work` forever, with a pause of `seconds` after each run, cut short if `wake` is set.

    The first run is after `delay` seconds. Work that raises is repeated too, after `retry` seconds
    if given. An outage of the bus is logged as `<name>_waiting`, other errors as `<name>_failed`.
    """
    await asyncio.sleep(delay)
    while True:
        pause = None
        try:
            await work()
        except BusUnavailableError as error:
            _log.info(f"{name}_waiting", detail=str(error)[:_SHOWN])
            pause = retry
        except Exception as error:  # noqa: BLE001 - a bug must not end the loop silently
            log_failure(f"{name}_failed", error)
            pause = retry
        if pause is None:
            pause = seconds() if callable(seconds) else seconds
        await _pause(pause, wake)


async def one_by_one(keys: Iterable[_K], work: Callable[[_K], Awaitable[object]]) -> None:
    """Do `work` for each key; raise the last error after all of them were tried."""
    failed: Exception | None = None
    for key in keys:
        try:
            await work(key)
        except Exception as error:  # noqa: BLE001 - one must not stop the others
            failed = error
    if failed is not None:
        raise failed


async def _pause(seconds: float, wake: asyncio.Event | None) -> None:
    if wake is None:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
    wake.clear()
