"""Series: signed events about one thing under numbered subjects, of which forged ones never count.

Theory of operation. A subject of the log can be written once, and the server does not check
signatures: whoever holds a role's bus key can occupy any subject of that role with unsigned bytes.
What must stay writable nevertheless is stored as a series: `<place>.0`, `<place>.1`, ... Events are
ordered by the log itself (the stream sequence). The number only gives each event a subject of its
own, for the compare-and-set of two honest writers.

* Reading the newest event costs one direct get by wildcard; in a cluster the leader confirms it.
  Earlier messages are read only if that one is forged, in backward steps that double.
* At most `SERIES_LENGTH` forged messages are skipped. If there are more, nothing is decided
  (`SeriesTooLongError`): a signed event hidden behind them may say the opposite.
* Writing appends at the number after the newest authentic event. If that subject is taken, its
  message is read. If it is another writer's event, the caller reads the series and decides again.
  If it is forged, the writer tries the next number, and after `_NEXT_NUMBERS` of them a random
  one, which nobody can occupy beforehand.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from shared.bus.core import AppendConflictError, Bus, BusUnavailableError
from shared.bus.log import read_authentic
from shared.limits import SERIES_LENGTH
from shared.log.envelope import (
    EventSigner,
    Message,
    Stored,
    Trusted,
    sign,
)

_log = structlog.get_logger()
_NEXT_NUMBERS: Final = 16
_RANDOM_BITS: Final = 62
_FIRST_STEP: Final = 64  # sequences of the stream
_E = TypeVar("_E")
# From a number: the subject, the event signed for it, and its lifetime in seconds (0: forever).
Write = Callable[[int], tuple[str, Message, int]]


class SeriesTooLongError(Exception):
    """Raised for a series with more forged messages than are skipped; retrying does not help."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[_E]):
    """An authentic event of a series and its stored message."""

    event: _E
    stored: Stored

    @property
    def number(self) -> int:
        """The event's number in the series: the last token of its subject."""
        return number_of(self.stored.subject)


def number_of(subject: str) -> int:
    """Return the number at the end of a subject, or -1 if its last token is not a number."""
    last = subject.rpartition(".")[2]
    return int(last) if last.isascii() and last.isdecimal() and len(last) <= _RANDOM_BITS else -1


@dataclass(frozen=True, slots=True)
class Series(Generic[_E]):
    """The events of one kind under a wildcard of `stream` that a key in `trusted` signed.

    `about` names the series in metrics.
    """

    bus: Bus
    stream: str
    wildcard: str
    kind: type[_E]
    trusted: Trusted
    about: str

    async def newest(self) -> Entry[_E] | None:
        """Return the last authentic event, or None. Raises `SeriesTooLongError`."""
        last = await self.bus.get_last_from_leader(self.stream, self.wildcard)
        if last is None:
            return None
        found, end, step = self._entry(last), last.sequence, _FIRST_STEP
        forged = self._counted(0, found)
        while found is None and end > 1:
            begin, step = max(1, end - step), step * 2
            async for stored in self._stored(begin, end):
                entry = self._entry(stored)
                found = entry or found
                forged = self._counted(forged, entry)
            end = begin
        return found

    async def hidden(self) -> Entry[_E] | None:
        """Return an authentic event that more forged ones hide than `newest` skips, or None.

        It looks back in steps that double, then halves the gap, so that it reads few messages
        however many are forged. It finds the newest event unless others before it are forged too.
        """
        last = await self.bus.get_last_from_leader(self.stream, self.wildcard)
        if last is None:
            return None
        found, low, high, step = self._entry(last), last.sequence, last.sequence, _FIRST_STEP
        while found is None:
            if low == 1:
                return None
            low, high, step = max(1, low - step), low, step * 2
            found = await self._at(low)
        while high - low > 1:
            middle = (low + high) // 2
            entry = await self._at(middle)
            if entry is None:
                high = middle
            else:
                found, low = entry, max(middle, entry.stored.sequence)
        return found

    async def _at(self, sequence: int) -> Entry[_E] | None:
        """Return the first message at or after a sequence, None if it is forged."""
        stored = await self.bus.get_next_or_leader(self.stream, self.wildcard, sequence)
        return self._entry(stored) if stored is not None else None

    async def first(self) -> Entry[_E] | None:
        """Return the first authentic event, or None. Raises `SeriesTooLongError`."""
        async for entry in self.all():
            return entry
        return None

    async def append(self, after: Entry[_E] | None, write: Write) -> int | None:
        """Append the event that follows `after` at the first free number; return its sequence.

        Returns None if another writer was faster: read the series and decide again. An event on a
        tried number that is older than `after` is skipped: an event can expire before one with a
        higher number, and its low number is then reused.
        """
        for number in _numbers(0 if after is None else after.number + 1):
            subject, message, ttl = write(number)
            try:
                return await self.bus.append(subject, message, ttl)
            except AppendConflictError:
                there = await self.bus.get_last_or_leader(self.stream, subject)
            if there is None:
                raise BusUnavailableError("the message on the subject cannot be read yet")
            entry = self._entry(there)
            if entry is not None and (after is None or there.sequence > after.stored.sequence):
                return None
        return None

    async def all(self, after: Entry[_E] | None = None) -> AsyncIterator[Entry[_E]]:
        """Yield the authentic events that follow `after`, in the order of the log.

        Raises `SeriesTooLongError` if there are too many forged ones.
        """
        forged = 0
        async for stored in self._stored(1 if after is None else after.stored.sequence + 1):
            entry = self._entry(stored)
            forged = self._counted(forged, entry)
            if entry is not None:
                yield entry

    async def _stored(self, begin: int, end: int | None = None) -> AsyncIterator[Stored]:
        """Yield the messages from sequence `begin` up to but not including `end`."""
        while True:
            stored = await self.bus.get_next_or_leader(self.stream, self.wildcard, begin)
            if stored is None or (end is not None and stored.sequence >= end):
                return
            begin = stored.sequence + 1
            yield stored

    def _counted(self, forged: int, entry: Entry[_E] | None) -> int:
        """Return the number of forged messages so far, with this one if `entry` is None.

        Raises `SeriesTooLongError` if they are more than `SERIES_LENGTH`.
        """
        if entry is not None:
            return forged
        if forged == SERIES_LENGTH:
            text = f"{self.wildcard}: more than {SERIES_LENGTH} messages are forged"
            raise SeriesTooLongError(text)
        return forged + 1

    def _entry(self, stored: Stored) -> Entry[_E] | None:
        event = read_authentic(self.kind, stored, self.trusted, self.about)  # type: ignore[type-var]
        if event is None:
            return None
        return Entry(event, stored)


def signing(place: Callable[[int], str], event: Any, signer: EventSigner, ttl: int = 0) -> Write:
    """Return a `Write` that signs an event for the subject of its number."""

    def write(number: int) -> tuple[str, Message, int]:
        subject = place(number)
        return subject, sign(event, subject, signer), ttl

    return write


def _numbers(first: int) -> Iterator[int]:
    """Yield the numbers to try: some in turn from `first` on, then an unpredictable one."""
    yield from range(first, first + _NEXT_NUMBERS)
    yield first + secrets.randbits(_RANDOM_BITS)
