"""The interface of a bus that the services use, and its errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shared.log.envelope import Message, Stored


class BusError(Exception):
    """Base class of all errors of a bus."""


class BusUnavailableError(BusError):
    """Raised if the bus did not answer: the call may or may not have taken effect."""


class BusRefusedError(BusError):
    """Raised if the bus will never accept a message as it is; retrying does not help.

    The message is too large, or its subject or headers are invalid. Counts towards poison.
    """


class AppendConflictError(BusError):
    """Raised if the subject already has an event: read it and continue from there."""


class NobodyListensError(BusUnavailableError):
    """Raised if nothing listens on a subject.

    Either the role has no right to it (its account imports only what it may use), or the stream
    behind it does not exist yet.
    """


class NotAllowedError(NobodyListensError):
    """Raised if nats-server refused a publish: the role has no right to the subject."""


class Delivery(Protocol):
    """A message delivered by a consumer."""

    @property
    def stored(self) -> Stored:
        """The message and its position in the stream."""

    @property
    def stream(self) -> str:
        """The name of the message's stream."""

    @property
    def deliveries(self) -> int:
        """How often the message was delivered, counting this delivery: 1 the first time."""

    async def ack(self, count: int = 1) -> None:
        """Acknowledge the message; on an ack-all consumer, the `count` messages up to this one."""

    async def nak(self, delay: float) -> None:
        """Reject the message: deliver it again after `delay` seconds."""

    async def in_progress(self) -> None:
        """Report that work continues: restart the acknowledgement wait."""


@dataclass(frozen=True, slots=True)
class Size:
    """A stream's current size and limit in bytes; `most` is 0 if there is no limit."""

    used: int
    most: int


class Consumption(Protocol):
    """A running subscription to a durable consumer."""

    async def stop(self) -> None:
        """Stop pulling; messages already delivered may still be acknowledged."""

    async def resize(self, limit: int) -> None:
        """Deliver at most `limit` unsettled messages at a time from now on."""


OnDelivery = Callable[[Delivery], None]
OnHint = Callable[[str, bytes, Mapping[str, str]], None]


class Bus(Protocol):
    """Appends, reads, consumers and hints.

    Every call may raise `BusUnavailableError`, which a retry may cure. Calls that send an event may
    also raise `BusRefusedError`, which no retry cures.
    """

    @property
    def connected(self) -> bool:
        """Whether the connection to the bus is up."""

    def problems(self) -> list[str]:
        """Return what keeps this process from using the bus, for /readyz; [] if nothing does."""

    async def append(self, subject: str, message: Message, ttl: int = 0) -> int:
        """Store the subject's only message and return its sequence.

        Raises `AppendConflictError` if the subject already has a message. With `ttl` the message
        expires after that many seconds (only in a stream that allows it); 0 means never.
        """

    async def put(self, subject: str, message: Message, ttl: int = 0) -> int:
        """Store the subject's latest message (in a stream that keeps the latest); see `append`."""

    async def replace(self, subject: str, message: Message, last: int, ttl: int = 0) -> int:
        """Like `put`, if the subject's message is still the one at sequence `last` (0: none).

        Otherwise raises `AppendConflictError`: read the subject again.
        """

    async def get_last(self, stream: str, subject: str) -> Stored | None:
        """Return the last message on a subject or wildcard; None if the answering replica has none.

        A replica may lag behind. Never refuse or grant anything for good because of None.
        """

    async def get_sequence(self, stream: str, sequence: int) -> Stored | None:
        """Return the message at this sequence, or None if the answering replica has none."""

    async def get_next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """Return the first message on a subject or wildcard at or after this sequence, or None."""

    async def get_last_or_leader(self, stream: str, subject: str) -> Stored | None:
        """Like `get_last`, but None is confirmed by the leader: for callers that refuse on None.

        A message that exists costs one read, as with `get_last`.
        """

    async def get_last_from_leader(self, stream: str, subject: str) -> Stored | None:
        """Return the leader's last message, for callers that an older one or None would mislead.

        Takes the time of one read, also if there is no message.
        """

    async def get_next_or_leader(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """Like `get_next`, but None is confirmed by the leader."""

    async def get_sequence_or_leader(self, stream: str, sequence: int) -> Stored | None:
        """Like `get_sequence`, but None is confirmed by the leader."""

    async def size(self, stream: str) -> Size:
        """Return a stream's size and limit; only the audit service may call it."""

    async def count(self, stream: str) -> int:
        """Return how many messages a stream holds."""

    async def hint(self, subject: str, message: Message) -> None:
        """Publish with core NATS: no storage, no acknowledgement."""

    async def on_hint(self, subject: str, callback: OnHint) -> None:
        """Call `callback(subject, payload, headers)` for each hint."""

    async def consume(
        self, stream: str, durable: str, callback: OnDelivery, limit: int
    ) -> Consumption:
        """Deliver a durable consumer's messages, at most `limit` unsettled at a time."""

    async def close(self) -> None:
        """Flush and disconnect."""


def expect_header(last: int) -> dict[str, str]:
    """Return the header of a compare-and-set: `last` is the subject's last sequence, 0 for none."""
    return {"Nats-Expected-Last-Subject-Sequence": str(last)}


def ttl_header(ttl: int) -> dict[str, str]:
    """Return the header of a message that expires after `ttl` seconds; no header for 0 (never)."""
    return {"Nats-TTL": f"{ttl}s"} if ttl else {}
