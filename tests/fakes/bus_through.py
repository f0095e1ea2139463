"""A bus seen through something that happens around each call: other replicas' turns, a death."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from shared.bus.core import Bus, Consumption, OnDelivery, OnHint, Size
from shared.log.envelope import Message, Stored

T = TypeVar("T")
Step = Callable[[], Awaitable[None]]


@dataclass
class BusThrough:
    """See `Bus`; `step` is awaited before each call to `bus`, and again before its answer."""

    bus: Bus
    step: Step

    @property
    def connected(self) -> bool:
        return self.bus.connected

    def problems(self) -> list[str]:
        return self.bus.problems()

    async def append(self, subject: str, message: Message, ttl: int = 0) -> int:
        return await self._called(lambda: self.bus.append(subject, message, ttl))

    async def put(self, subject: str, message: Message, ttl: int = 0) -> int:
        return await self._called(lambda: self.bus.put(subject, message, ttl))

    async def replace(self, subject: str, message: Message, last: int, ttl: int = 0) -> int:
        return await self._called(lambda: self.bus.replace(subject, message, last, ttl))

    async def get_last(self, stream: str, subject: str) -> Stored | None:
        return await self._called(lambda: self.bus.get_last(stream, subject))

    async def get_sequence(self, stream: str, sequence: int) -> Stored | None:
        return await self._called(lambda: self.bus.get_sequence(stream, sequence))

    async def get_next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        return await self._called(lambda: self.bus.get_next(stream, subject, sequence))

    async def get_last_or_leader(self, stream: str, subject: str) -> Stored | None:
        return await self._called(lambda: self.bus.get_last_or_leader(stream, subject))

    async def get_last_from_leader(self, stream: str, subject: str) -> Stored | None:
        return await self._called(lambda: self.bus.get_last_from_leader(stream, subject))

    async def get_next_or_leader(self, stream: str, subject: str, sequence: int) -> Stored | None:
        return await self._called(lambda: self.bus.get_next_or_leader(stream, subject, sequence))

    async def get_sequence_or_leader(self, stream: str, sequence: int) -> Stored | None:
        return await self._called(lambda: self.bus.get_sequence_or_leader(stream, sequence))

    async def size(self, stream: str) -> Size:
        return await self._called(lambda: self.bus.size(stream))

    async def count(self, stream: str) -> int:
        return await self._called(lambda: self.bus.count(stream))

    async def hint(self, subject: str, message: Message) -> None:
        await self._called(lambda: self.bus.hint(subject, message))

    async def on_hint(self, subject: str, callback: OnHint) -> None:
        await self.bus.on_hint(subject, callback)

    async def consume(
        self, stream: str, durable: str, callback: OnDelivery, limit: int
    ) -> Consumption:
        return await self.bus.consume(stream, durable, callback, limit)

    async def close(self) -> None:
        await self.bus.close()

    async def _called(self, call: Callable[[], Awaitable[T]]) -> T:
        await self.step()
        found = await call()
        await self.step()
        return found


def racing(seed: int) -> Step:
    """Others get some turns, how many is up to the seed: calls overlap as on a network."""
    numbers = random.Random(seed)

    async def step() -> None:
        for _ in range(numbers.randrange(4)):
            await asyncio.sleep(0)

    return step


@dataclass
class Trouble:
    """A step that raises `error` once, the `at`-th time it is awaited (from 0)."""

    at: int
    error: Callable[[], BaseException]
    steps: int = field(default=0)

    async def __call__(self) -> None:
        self.steps += 1
        if self.steps - 1 == self.at:
            raise self.error()

    @property
    def happened(self) -> bool:
        return self.steps > self.at
