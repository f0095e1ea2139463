"""The bus in memory, for tests of what stands on it: the contract suite runs on it too."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from shared.bus.core import (
    AppendConflictError,
    BusUnavailableError,
    Consumption,
    NobodyListensError,
    OnDelivery,
    OnHint,
    Size,
    ttl_header,
)
from shared.log.envelope import Message, Stored


def matches(pattern: str, subject: str) -> bool:
    """NATS wildcards: `*` is one token, `>` the rest, at least one."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, tokens = (
            wanted[:-1],
            tokens[: len(wanted) - 1] if len(tokens) >= len(wanted) else [],
        )
        if len(tokens) != len(wanted):
            return False
    return len(wanted) == len(tokens) and all(
        w in ("*", t) for w, t in zip(wanted, tokens, strict=True)
    )


@dataclass
class MemoryStream:
    """A stream: its subjects, its messages by sequence."""

    subjects: tuple[str, ...]
    messages: dict[int, Stored] = field(default_factory=dict)
    last: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    max_age: float = 0.0


@dataclass
class MemoryConsumer:
    """A durable's state: what it may see, how far it came, what is out or waiting again."""

    stream: str
    filters: tuple[str, ...]
    ack_all: bool = False
    position: int = 0
    deliveries: dict[int, int] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)
    out: set[int] = field(default_factory=set)


@dataclass
class MemoryDelivery:
    """See `Delivery`."""

    stored: Stored
    stream: str
    deliveries: int
    consumer: MemoryConsumer
    consumption: "MemoryConsumption"

    async def ack(self, count: int = 1) -> None:
        """See `Delivery.ack`."""
        del count
        sequence, consumer = self.stored.sequence, self.consumer
        done = {s for s in consumer.out if s <= sequence} if consumer.ack_all else {sequence}
        consumer.out -= done
        self.consumption.unsettled -= len(done)
        self.consumption.pump()

    async def nak(self, delay: float) -> None:
        """See `Delivery.nak`; the delay is kept as order alone."""
        del delay
        self.consumer.out.discard(self.stored.sequence)
        self.consumer.again.append(self.stored.sequence)
        self.consumption.unsettled -= 1
        self.consumption.pump()

    async def in_progress(self) -> None:
        """Nothing expires in memory by itself."""


@dataclass
class MemoryConsumption:
    """See `Consumption`."""

    bus: "MemoryBus"
    consumer: MemoryConsumer
    callback: OnDelivery
    limit: int
    unsettled: int = 0
    stopped: bool = False

    async def stop(self) -> None:
        """See `Consumption.stop`."""
        self.stopped = True

    async def resize(self, limit: int) -> None:
        """See `Consumption.resize`."""
        self.limit = limit
        self.pump()

    def pump(self) -> None:
        """Hand out what there is, soon: a callback never runs inside the caller's own call."""
        asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        while not self.stopped and self.unsettled < self.limit:
            stored = self.bus.next_for(self.consumer)
            if stored is None:
                return
            count = self.consumer.deliveries.get(stored.sequence, 0) + 1
            self.consumer.deliveries[stored.sequence] = count
            self.consumer.out.add(stored.sequence)
            self.unsettled += 1
            delivery = MemoryDelivery(stored, self.consumer.stream, count, self.consumer, self)
            self.callback(delivery)


@dataclass
class MemoryBus:
    """A `Bus` in one process; `clock` gives Unix nanoseconds.

    `lag` makes the replica slow that answers direct reads: how many messages of a stream it lacks.
    """

    clock: Callable[[], int] = field(default_factory=lambda: itertools.count(1).__next__)
    streams: dict[str, MemoryStream] = field(default_factory=dict)
    consumers: dict[str, MemoryConsumer] = field(default_factory=dict)
    hints: list[tuple[str, OnHint]] = field(default_factory=list)
    running: list[MemoryConsumption] = field(default_factory=list)
    connected: bool = True
    troubles: list[str] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=lambda: MemoryBus.usual_lag)
    usual_lag: ClassVar[Mapping[str, int]] = {}

    def problems(self) -> list[str]:
        """See `Bus.problems`."""
        return self.troubles if self.connected else ["bus"]

    def _check(self) -> None:
        if not self.connected:
            raise BusUnavailableError("not connected")

    def _stream_of(self, subject: str) -> MemoryStream:
        for stream in self.streams.values():
            if any(matches(pattern, subject) for pattern in stream.subjects):
                return stream
        raise BusUnavailableError(f"no stream takes {subject}")

    async def append(self, subject: str, message: Message, ttl: int = 0) -> int:
        """See `Bus.append`."""
        return await self.replace(subject, message, 0, ttl)

    async def put(self, subject: str, message: Message, ttl: int = 0) -> int:
        """See `Bus.put`."""
        self._check()
        stream = self._stream_of(subject)
        self._forget(stream, subject)
        return self._store(stream, subject, message, ttl)

    async def replace(self, subject: str, message: Message, last: int, ttl: int = 0) -> int:
        """See `Bus.replace`."""
        self._check()
        stream = self._stream_of(subject)
        self._end(stream)
        found = [s for s, m in stream.messages.items() if m.subject == subject]
        if found != ([last] if last else []):
            raise AppendConflictError(subject)
        self._forget(stream, subject)
        return self._store(stream, subject, message, ttl)

    def _forget(self, stream: MemoryStream, subject: str) -> None:
        for sequence in [s for s, m in stream.messages.items() if m.subject == subject]:
            del stream.messages[sequence]

    def _end(self, stream: MemoryStream) -> None:
        """What a real server does by itself: messages leave when their own time is over."""
        if not stream.ends:
            return
        now = self.clock()
        for sequence in [s for s, end in stream.ends.items() if end <= now]:
            del stream.ends[sequence]
            stream.messages.pop(sequence, None)

    def _store(self, stream: MemoryStream, subject: str, message: Message, ttl: int = 0) -> int:
        stream.last += 1
        headers = message.headers | ttl_header(ttl)
        stored = Stored(subject, message.payload, headers, stream.last, self.clock())
        stream.messages[stream.last] = stored
        if life := ttl or stream.max_age:
            stream.ends[stream.last] = stored.time + int(life * 1_000_000_000)
        for consumption in self.running:
            consumption.pump()
        return stream.last

    def _seen(self, stream: str, *, by_leader: bool) -> list[Stored]:
        """What the leader has, or what a replica has that lacks the newest ones."""
        self._check()
        if stream not in self.streams:
            raise NobodyListensError(f"there is no stream {stream}")
        self._end(self.streams[stream])
        newest = self.streams[stream].last - (0 if by_leader else self.lag.get(stream, 0))
        return [m for number, m in self.streams[stream].messages.items() if number <= newest]

    async def get_last(self, stream: str, subject: str, *, leader: bool = False) -> Stored | None:
        """See `Bus.get_last`."""
        found = [m for m in self._seen(stream, by_leader=leader) if matches(subject, m.subject)]
        return found[-1] if found else None

    async def get_sequence(
        self, stream: str, sequence: int, *, leader: bool = False
    ) -> Stored | None:
        """See `Bus.get_sequence`."""
        found = (m for m in self._seen(stream, by_leader=leader) if m.sequence == sequence)
        return next(found, None)

    async def get_next(
        self, stream: str, subject: str, sequence: int, *, leader: bool = False
    ) -> Stored | None:
        """See `Bus.get_next`."""
        found = (
            m
            for m in self._seen(stream, by_leader=leader)
            if m.sequence >= sequence and matches(subject, m.subject)
        )
        return next(found, None)

    async def get_last_or_leader(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.get_last_or_leader`."""
        found = await self.get_last(stream, subject)
        return found or await self.get_last(stream, subject, leader=True)

    async def get_last_from_leader(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.get_last_from_leader`."""
        return await self.get_last(stream, subject, leader=True)

    async def get_next_or_leader(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """See `Bus.get_next_or_leader`."""
        found = await self.get_next(stream, subject, sequence)
        return found or await self.get_next(stream, subject, sequence, leader=True)

    async def get_sequence_or_leader(self, stream: str, sequence: int) -> Stored | None:
        """See `Bus.get_sequence_or_leader`."""
        return await self.get_sequence(stream, sequence, leader=True)

    async def size(self, stream: str) -> Size:
        """See `Bus.size`."""
        self._check()
        used = sum(len(m.payload) for m in self.streams[stream].messages.values())
        return Size(used, self.most.get(stream, 0))

    async def count(self, stream: str) -> int:
        """See `Bus.count`."""
        self._check()
        self._end(self.streams[stream])
        return len(self.streams[stream].messages)

    async def hint(self, subject: str, message: Message) -> None:
        """See `Bus.hint`."""
        self._check()
        for pattern, callback in self.hints:
            if matches(pattern, subject):
                headers: Mapping[str, str] = dict(message.headers)
                asyncio.get_running_loop().call_soon(callback, subject, message.payload, headers)

    async def on_hint(self, subject: str, callback: OnHint) -> None:
        """See `Bus.on_hint`."""
        self.hints.append((subject, callback))

    async def consume(
        self, stream: str, durable: str, callback: OnDelivery, limit: int
    ) -> Consumption:
        """See `Bus.consume`."""
        consumption = MemoryConsumption(
            self, self.consumers[f"{stream}/{durable}"], callback, limit
        )
        self.running.append(consumption)
        consumption.pump()
        return consumption

    def next_for(self, consumer: MemoryConsumer) -> Stored | None:
        """The next message for a durable: first those given back, then new ones."""
        messages = self.streams[consumer.stream].messages
        if consumer.again:
            return messages[consumer.again.pop(0)]
        for sequence in sorted(s for s in messages if s > consumer.position):
            consumer.position = sequence
            if any(matches(pattern, messages[sequence].subject) for pattern in consumer.filters):
                return messages[sequence]
        return None

    def expire(self) -> None:
        """What the ack wait of a real consumer does: everything out is handed out again."""
        for consumer in self.consumers.values():
            consumer.again += sorted(consumer.out)
            consumer.out.clear()
        for consumption in self.running:
            consumption.unsettled = 0
            consumption.pump()

    async def close(self) -> None:
        """See `Bus.close`."""
        for consumption in self.running:
            await consumption.stop()
