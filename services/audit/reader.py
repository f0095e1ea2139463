"""A stream of the log from one sequence to another, many messages on their way at a time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from shared.bus.core import Bus
from shared.stored import Stored

_AT_ONCE: Final = 256
_ASKED_AGAIN: Final = 3


async def last_sequence(bus: Bus, stream: str) -> int:
    """The sequence of the newest message, 0 in an empty stream."""
    newest = await bus.get_last_from_leader(stream, ">")
    return newest.sequence if newest is not None else 0


async def read_some(bus: Bus, stream: str, numbers: Sequence[int]) -> dict[int, Stored]:
    """The messages of these sequences by sequence, as far as the log has them."""
    found: dict[int, Stored] = {}
    for start in range(0, len(numbers), _AT_ONCE):
        asked = numbers[start : start + _AT_ONCE]
        answers = await asyncio.gather(*(bus.get_sequence(stream, number) for number in asked))
        found |= {message.sequence: message for message in answers if message is not None}
    return found


async def confirmed(
    bus: Bus, stream: str, numbers: Sequence[int], seconds: float
) -> dict[int, Stored]:
    """Those of the messages that are there after all, asked for again `seconds` apart.

    A replica of the log that lags behind answers that it has no such message.
    """
    found: dict[int, Stored] = {}
    for _ in range(_ASKED_AGAIN):
        await asyncio.sleep(seconds)
        missing = [number for number in numbers if number not in found]
        found |= await read_some(bus, stream, missing)
        if len(found) == len(numbers):
            break
    return found


async def read(bus: Bus, stream: str, first: int, last: int) -> AsyncIterator[list[Stored]]:
    """The messages of these sequences in order, in batches; what the log has no more is missing."""
    for start in range(first, last + 1, _AT_ONCE):
        wanted = range(start, min(start + _AT_ONCE, last + 1))
        found = await asyncio.gather(
            *(bus.get_sequence_or_leader(stream, number) for number in wanted)
        )
        yield [message for message in found if message is not None]
