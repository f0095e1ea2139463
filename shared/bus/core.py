"""What the services ask of a bus, and the errors it may answer with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shared.log.envelope import Message, Stored


class BusError(Exception):
    """Root of what a bus raises."""


class BusUnavailableError(BusError):
    """Raised where the bus did not answer: the call may or may not have taken effect."""


class BusRefusedError(BusError):
    """Raised where the bus will never take a message as it is: waiting cures nothing.

    It is too large, or its subject or headers are none. It counts towards poison.
    """


class AppendConflictError(BusError):
    """Raised where the subject holds an event already: go on from that one."""


class NobodyListensError(BusUnavailableError):
    """Raised where no one answers on a subject.

    Either the role may not reach it (its account imports only what it may use), or the stream
    behind it is not there yet.
    """


class NotAllowedError(NobodyListensError):
    """Raised where nats-server refused a publish: the role has no right to the subject."""


class Delivery(Protocol):
    """A message handed out by a consumer; `deliveries` counts from 1."""

    @property
    def stored(self) -> Stored:
        """The message and its place in the stream."""

    @property
    def stream(self) -> str:
        """The stream it stands in."""

    @property
    def deliveries(self) -> int:
        """How often it was handed out, this time included."""

    async def ack(self, count: int = 1) -> None:
        """Done with it; on an ack-all consumer, with the `count` messages up to it."""

    async def nak(self, delay: float) -> None:
        """Not done: hand it out again after `delay` seconds."""

    async def in_progress(self) -> None:
        """Still at work: restart the acknowledgement wait."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes that a stream holds, and may hold; `most` is 0 where there is no limit."""

    used: int
    most: int


class Consumption(Protocol):
    """A running subscription to a durable consumer."""

    async def stop(self) -> None:
        """Ask for no more; what was handed out may still be acknowledged."""

    async def resize(self, limit: int) -> None:
        """Hand out at most `limit` unsettled at a time from now on."""


OnDelivery = Callable[[Delivery], None]
OnHint = Callable[[str, bytes, Mapping[str, str]], None]


class Bus(Protocol):
    """Append, read, consume, hint.

    Every call may raise `BusUnavailableError`: wait. One that sends an event may raise
    `BusRefusedError`: waiting does not help.
    """

    @property
    def connected(self) -> bool:
        """Whether the bus can be asked now."""

    def problems(self) -> list[str]:
        """What keeps this process from its work with the bus, for /readyz; [] when nothing does."""

    async def append(self, subject: str, message: Message, ttl: int = 0) -> int:
        """Store as the subject's only message; its sequence, or `AppendConflictError`.

        With `ttl` it leaves the stream after so many seconds (of a stream whose messages may).
        """

    async def put(self, subject: str, message: Message, ttl: int = 0) -> int:
        """Store as the subject's latest message (of a stream that keeps the latest)."""

    async def replace(self, subject: str, message: Message, last: int, ttl: int = 0) -> int:
        """As `put`, if the subject's message is still the one at sequence `last` (0: none).

        Else `AppendConflictError`: read it again.
        """

    async def get_last(self, stream: str, subject: str) -> Stored | None:
        """The last message on a subject or wildcard, None where the replica that answers has none.

        A replica may be behind. Nothing may be refused or granted for good because of None.
        """

    async def get_sequence(self, stream: str, sequence: int) -> Stored | None:
        """The message at this sequence, None where there is none."""

    async def get_next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """The first message on a subject or wildcard at or after this sequence."""

    async def get_last_or_leader(self, stream: str, subject: str) -> Stored | None:
        """As `get_last`, for who refuses where there is nothing: None is the leader's word.

        What is there costs one read, as ever.
        """

    async def get_last_from_leader(self, stream: str, subject: str) -> Stored | None:
        """The last message as the leader has it now, where an older one or none misleads.

        Costs the time of one read, also where there is nothing.
        """

    async def get_next_or_leader(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """As `get_next`; None is the leader's word."""

    async def get_sequence_or_leader(self, stream: str, sequence: int) -> Stored | None:
        """As `get_sequence`; None is the leader's word."""

    async def size(self, stream: str) -> Size:
        """How much a stream holds and may hold; for the audit service alone."""

    async def count(self, stream: str) -> int:
        """How many messages a stream holds."""

    async def hint(self, subject: str, message: Message) -> None:
        """A core publish: no storage, no acknowledgement."""

    async def on_hint(self, subject: str, callback: OnHint) -> None:
        """Call back (subject, payload, headers) for each hint."""

    async def consume(
        self, stream: str, durable: str, callback: OnDelivery, limit: int
    ) -> Consumption:
        """Hand out a durable consumer's messages, at most `limit` unsettled at a time."""

    async def close(self) -> None:
        """Flush and leave."""


def expecting(last: int) -> dict[str, str]:
    """The header of a compare-and-set: the sequence of the subject's message, 0 for none."""
    return {"Nats-Expected-Last-Subject-Sequence": str(last)}


def ending(ttl: int) -> dict[str, str]:
    """The header of a message that leaves the stream after `ttl` seconds; 0: never."""
    return {"Nats-TTL": f"{ttl}s"} if ttl else {}
