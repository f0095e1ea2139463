"""Reads whose absence decides something: asked of the stream's leader, not of any replica.

Theory of operation. A direct get is answered by any replica of a stream, and a follower may be
behind: what it does not have may be stored all the same. Where "there is nothing" would refuse a
request for good, or grant what a revocation forbids, the leader is asked for the sequence of the
newest message on the subject. With that sequence the ordinary direct get is repeated until the
answering replica has caught up.

The leader is asked by an append that can never be stored: on `ask.<stream>`, expecting 2^64 - 1 as
the last sequence. The refusal names the newest sequence on any wildcard of the stream (a header
says which). So a role needs no right but that one subject, which tells sequences and no content.
$JS.API.STREAM.MSG.GET would not do: its body names what is read, so the server cannot restrict it,
and it looks for the stream in the asking account (tried).

A leader that was cut off from its peers may answer until it notices, some ten seconds: what it does
not know yet was acknowledged by its successor. See docs/decisions/0036.

A stream with one replica answers every read from what it stored: nothing is asked twice.
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
    """The part of a `Bus` that asks leaders, where streams are replicated."""

    replicated: bool

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> Msg:
        """Publish and wait for the one answer."""
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
        # A replica that has anything later has all that is before it.
        later = await self.get_next_or_leader(stream, ">", sequence)
        return later if later is not None and later.sequence == sequence else None

    async def _newest(self, stream: str, subject: str) -> int:
        """The newest sequence on a subject or wildcard as the leader has it, 0 for none."""
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
        raise BusUnavailableError("the stream's leader names no sequence")

    async def _caught_up(self, read: _Read, newest: int) -> Stored | None:
        """What `read` finds once its replica has sequence `newest`; 0: there is nothing."""
        if newest == 0:
            return None
        async for _ in _moments():
            found = await read()
            if found is not None and found.sequence >= newest:
                return found
        raise BusUnavailableError("a replica of the stream is behind")


async def _moments() -> AsyncIterator[None]:
    """Moments to look again, ever further apart, for `_PATIENCE_SECONDS`."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + _PATIENCE_SECONDS, _PAUSE_SECONDS
    while True:
        yield
        if loop.time() + pause > deadline:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
