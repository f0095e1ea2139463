"""Reads of a stream by sequence, many messages at a time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from shared.bus.core import Bus, BusUnavailableError, NotAllowedError
from shared.log.envelope import Stored

_AT_ONCE: Final = 256
_PATIENCE_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 1.0
_T = TypeVar("_T")


async def last_sequence(bus: Bus, stream: str) -> int:
    """Return the sequence of the newest message, 0 for an empty stream."""
    newest = await bus.get_last_from_leader(stream, ">")
    return newest.sequence if newest is not None else 0


async def read_some(bus: Bus, stream: str, numbers: Sequence[int]) -> dict[int, Stored]:
    """Return the messages at these sequences, by sequence; those the log lacks are left out."""
    found: dict[int, Stored] = {}
    for start in range(0, len(numbers), _AT_ONCE):
        batch = await _at_once(bus, stream, numbers[start : start + _AT_ONCE])
        found |= {message.sequence: message for message in batch}
    return found


async def read(bus: Bus, stream: str, first: int, last: int) -> AsyncIterator[list[Stored]]:
    """Yield the messages from `first` to `last` in ordered batches, without those the log lacks.

    Waits out an outage, see `patiently`.
    """
    for start in range(first, last + 1, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, last + 1))
        yield await patiently(partial(_at_once, bus, stream, numbers))


async def patiently(read: Callable[[], Awaitable[_T]]) -> _T:
    """Return what a read returns; repeat it while the log is away, for half a minute.

    For commands that would have to start over. Raises the last error.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            return await read()
        except NotAllowedError:
            raise
        except BusUnavailableError:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _at_once(bus: Bus, stream: str, numbers: Iterable[int]) -> list[Stored]:
    """Return those of these messages that the log has; the leader confirms that one is missing."""
    found = await asyncio.gather(*(bus.get_sequence_or_leader(stream, n) for n in numbers))
    return [message for message in found if message is not None]
