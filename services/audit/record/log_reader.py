"""Reads of a stream by sequence, many messages at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from shared.bus.core import Bus, BusUnavailableError
from shared.log.envelope import Stored

_AT_ONCE: Final = 256
_RETRIES: Final = 30
_PAUSE_SECONDS: Final = 1.0


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

    A whole log takes minutes to read, so an outage of up to half a minute is waited for.
    """
    for start in range(first, last + 1, _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, last + 1))
        yield await _patiently(bus, stream, numbers)


async def _patiently(bus: Bus, stream: str, numbers: Sequence[int]) -> list[Stored]:
    for _ in range(_RETRIES):
        try:
            return await _at_once(bus, stream, numbers)
        except BusUnavailableError:
            await asyncio.sleep(_PAUSE_SECONDS)
    return await _at_once(bus, stream, numbers)


async def _at_once(bus: Bus, stream: str, numbers: Iterable[int]) -> list[Stored]:
    """Return those of these messages that the log has; the leader confirms that one is missing."""
    found = await asyncio.gather(*(bus.get_sequence_or_leader(stream, n) for n in numbers))
    return [message for message in found if message is not None]
