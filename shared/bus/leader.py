"""Reads that confirm the absence of a message with the stream's leader.

Theory of operation. A direct get is answered by any replica of a stream. A follower may be behind,
so a message that it does not have may be stored nevertheless. Where "no such message" would refuse
a request for good, or grant what a revocation forbids, the leader is asked for the sequence of the
newest message on the subject. The ordinary direct get is then repeated until the answering replica
has caught up with that sequence.

The leader is asked with an append that can never be stored: on `ask.<stream>`, expecting 2^64 - 1
as the last sequence. The refusal names the newest sequence on any wildcard of the stream (a header
says which). A role thus needs the right to that one subject only, which reveals sequences but no
content. $JS.API.STREAM.MSG.GET does not work: its body names the message, so the server cannot
restrict it, and it looks for the stream in the calling account (tried).

A leader that is cut off from its peers answers until it notices, for some ten seconds, and does not
know what its successor acknowledged meanwhile. See docs/decisions/0036.

A stream with one replica answers every read from its only copy, so its leader is never asked.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from nats.aio.msg import Msg

from shared.bus.answers import IN_FLIGHT, WRONG_LAST_SEQUENCE, failure_of, read_pub_ack
from shared.bus.core import BusUnavailableError
from shared.bus.topology import ask_subject
from shared.log.envelope import Stored

_PATIENCE_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE: Final = 0.25
_NEVER: Final = "18446744073709551615"
_NEWEST: Final = re.compile(r"wrong last sequence: (\d{1,20})")

_Read = Callable[[], Awaitable[Stored | None]]


class LeaderReads:
    """The part of a `Bus` that asks leaders if streams are replicated."""

    replicated: bool

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> Msg:
        """Publish and wait for the single reply."""
        raise NotImplementedError

    async def get_last(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.get_last`."""
        raise NotImplementedError

    async def get_sequence(self, stream: str, sequence: int) -> Stored | None:
        """See `Bus.get_sequence`."""
        raise NotImplementedError

    async def get_next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """See `Bus.get_next`."""
        raise NotImplementedError

    async def get_last_or_leader(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.get_last_or_leader`."""
        found = await self.get_last(stream, subject)
        if found is not None or not self.replicated:
            return found
        newest = await self._newest(stream, subject)
        return await self._caught_up(lambda: self.get_last(stream, subject), newest)

    async def get_last_from_leader(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.get_last_from_leader`."""
        if not self.replicated:
            return await self.get_last(stream, subject)
        found, newest = await asyncio.gather(
            self.get_last(stream, subject), self._newest(stream, subject)
        )
        if found is not None and found.sequence >= newest:
            return found
        return await self._caught_up(lambda: self.get_last(stream, subject), newest)

    async def get_next_or_leader(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """See `Bus.get_next_or_leader`."""
        found = await self.get_next(stream, subject, sequence)
        if found is not None or not self.replicated:
            return found
        newest = await self._newest(stream, subject)
        if newest < sequence:
            return None
        return await self._caught_up(lambda: self.get_next(stream, subject, sequence), sequence)

    async def get_sequence_or_leader(self, stream: str, sequence: int) -> Stored | None:
        """See `Bus.get_sequence_or_leader`."""
        found = await self.get_sequence(stream, sequence)
        if found is not None or not self.replicated:
            return found
        # A replica that has a later message has everything before it.
        later = await self.get_next_or_leader(stream, ">", sequence)
        return later if later is not None and later.sequence == sequence else None

    async def _newest(self, stream: str, subject: str) -> int:
        """Return the leader's newest sequence on a subject or wildcard, 0 for none."""
        headers = {
            "Nats-Expected-Last-Subject-Sequence": _NEVER,
            "Nats-Expected-Last-Subject-Sequence-Subject": subject,
        }
        async for _ in _moments():
            answer = await self.request(ask_subject(stream), b"", dict(headers))
            ack = read_pub_ack(answer.data)
            if ack.error is None:
                break
            if ack.error.err_code == WRONG_LAST_SEQUENCE:
                if found := _NEWEST.search(ack.error.description):
                    return int(found[1])
            elif ack.error.err_code != IN_FLIGHT:
                raise failure_of(ack.error)
        raise BusUnavailableError("the stream's leader returned no sequence")

    async def _caught_up(self, read: _Read, newest: int) -> Stored | None:
        """Return what `read` finds once its replica has sequence `newest`; None if that is 0.

        Raises `BusUnavailableError` if no replica catches up in time.
        """
        if newest == 0:
            return None
        async for _ in _moments():
            found = await read()
            if found is not None and found.sequence >= newest:
                return found
        raise BusUnavailableError("a replica of the stream is behind")


async def _moments() -> AsyncIterator[None]:
    """Yield when to try again, with growing pauses, for up to `_PATIENCE_SECONDS`."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _PATIENCE_SECONDS, _PAUSE_SECONDS
    while True:
        yield
        if loop.time() + pause > deadline:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
