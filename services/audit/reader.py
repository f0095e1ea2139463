"""A stream of the log from one sequence to another, many messages on their way at a time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from shared.bus.core import Bus
from shared.stored import Stored

_AT_ONCE: Final = 256


async def last_sequence(bus: Bus, stream: str) -> int:
    """The sequence of the newest message, 0 in an empty stream."""
    newest = await bus.get_last(stream, ">")
    return newest.sequence if newest is not None else 0


async def read(bus: Bus, stream: str, first: int, last: int) -> AsyncIterator[list[Stored]]:
    """The messages of these sequences in order, in batches; what the log has no more is missing."""
    for start in range(first, last + 1, _AT_ONCE):
        wanted = range(start, min(start + _AT_ONCE, last + 1))
        found = await asyncio.gather(*(bus.get_sequence(stream, number) for number in wanted))
        yield [message for message in found if message is not None]
