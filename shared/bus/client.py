"""A NATS client whose parsing never raises, whatever bytes another role stored or sent.

nats-py decodes subjects as UTF-8 and treats a vertical tab as the end of one. One stored subject
with a byte 0xFF or 0x0B ends its read loop, and again at every redelivery, so no handler gets the
chance to give up on the message. Here, as in nats-server, a subject is any bytes without spaces, CR
or LF, and headers are any bytes.

The server's own status (`NATS/1.0 404`) is kept apart from headers that a publisher named `Status`:
it is stored under `STATUS`, a key that no header line can have.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser

from shared.observe.logs import log_failure

_log = structlog.get_logger()
OnMessage = Callable[[Msg], Awaitable[None]]
# A header name never contains a colon, so a publisher cannot forge either key.
STATUS: Final = ":status"
DESCRIPTION: Final = ":description"
_VERSION: Final = b"NATS/1.0"
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_MAX_LINE: Final = 64 * 1024  # INFO of a large cluster; everything else has 4 KiB
_WITHOUT_REPLY: Final = 3  # the operation, the subject and the subscription's id


def read_headers(block: bytes) -> dict[str, str]:
    """Return a message's headers, and the server's status if the first line has one.

    If a name is repeated the last value counts: nats-server appends its own after a publisher's.
    """
    first, _, lines = block.partition(b"\r\n")
    found: dict[str, str] = {}
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        key = name.strip()
        if colon and key and key.isascii():
            found[key.decode("ascii")] = text_of(value.strip(b" \t"))
    status, _, description = first.removeprefix(_VERSION).strip().partition(b" ")
    if status:
        found[STATUS] = status.decode("ascii", "replace")
        found[DESCRIPTION] = description.decode("utf-8", "replace")
    return found


def text_of(written: bytes) -> str:
    """Return a subject or header as text that is safe for terminals, databases and logs.

    Bytes that are not UTF-8 and control characters are escaped; our own subjects and headers have
    neither. PostgreSQL rejects NUL, and one would stop the audit service's recording for good.
    """
    text = written.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else text.translate(_CONTROLS)


class TolerantParser(Parser):
    """A parser of the server's side of the protocol that relies only on lengths and spaces."""

    async def parse(self, data: bytes = b"") -> None:
        """Buffer more bytes and dispatch every complete message."""
        self.buf.extend(data)
        while self.buf:
            if self.state == AWAITING_CONTROL_LINE:
                end = self.buf.find(b"\r\n")
                if end < 0:
                    if len(self.buf) > _MAX_LINE:
                        raise ProtocolError
                    return
                line = bytes(self.buf[:end])
                del self.buf[: end + 2]
                await self._control(line)
            elif len(self.buf) < self.needed + 2:
                return
            else:
                await self._message()

    async def _control(self, line: bytes) -> None:
        operation, _, rest = line.partition(b" ")
        if operation in (b"MSG", b"HMSG"):
            self._expect(operation, line.split(b" "))
        elif operation == b"PING":
            await self.nc._process_ping()  # noqa: SLF001 - the parser is the client's other half
        elif operation == b"PONG":
            await self.nc._process_pong()  # noqa: SLF001
        elif operation == b"INFO":
            await self.nc._process_info(json.loads(rest))  # noqa: SLF001
        elif operation == b"-ERR":
            await self.nc._process_err(text_of(rest.strip()).lower())  # noqa: SLF001
        elif operation != b"+OK":
            raise ProtocolError

    def _expect(self, operation: bytes, parts: list[bytes]) -> None:
        """Parse the header of the next message: `MSG subject sid [reply] size`; HMSG: two sizes."""
        sizes = 2 if operation == b"HMSG" else 1
        if len(parts) - sizes not in (_WITHOUT_REPLY, _WITHOUT_REPLY + 1):
            raise ProtocolError
        try:
            self.header_needed = int(parts[-2]) if sizes == 2 else 0  # noqa: PLR2004 - two sizes
            self.needed, sid = int(parts[-1]), int(parts[2])
        except ValueError:
            raise ProtocolError from None
        if not 0 <= self.header_needed <= self.needed:
            raise ProtocolError
        self.msg_arg = {"subject": parts[1], "sid": sid, "reply": b"".join(parts[3:-sizes])}
        self.state = AWAITING_MSG_PAYLOAD

    async def _message(self) -> None:
        headers = bytes(self.buf[: self.header_needed])
        payload = bytes(self.buf[self.header_needed : self.needed])
        del self.buf[: self.needed + 2]
        self.header_needed = 0
        self.state = AWAITING_CONTROL_LINE
        about = self.msg_arg
        await self.nc._process_msg(  # noqa: SLF001
            about["sid"], about["subject"], about["reply"], payload, headers
        )


class _Listener(partial[Awaitable[None]]):
    """A callback of `listen`; nats-py accepts a partial of a coroutine function as a callback."""


class TolerantClient(Client):
    """nats-py's client with a parser that never raises and callbacks run by the reader itself.

    nats-py passes each message through a queue to its subscription's task: one wake-up per message.
    `on_reader_ended` is called if the read loop ends nevertheless while the connection is up: the
    process would otherwise receive nothing more and not notice.
    """

    def __init__(self, on_reader_ended: Callable[[], None]) -> None:
        """Create a client that is not connected yet."""
        super().__init__()
        self._ps = TolerantParser(self)
        self._on_reader_ended = on_reader_ended
        self._listeners: dict[int, OnMessage] = {}

    async def listen(self, subject: str, callback: OnMessage) -> Subscription:
        """Subscribe; call back for each message in order, before the next one is read.

        A callback must not wait, since nothing else is read meanwhile. Its exceptions are logged
        and end nothing. The subscription does not count messages, so call `unsubscribe` without a
        limit.
        """
        return await self.subscribe(subject, cb=_Listener(callback))

    async def _send_subscribe(self, sub: Subscription) -> None:
        if isinstance(sub._cb, _Listener):  # noqa: SLF001
            self._listeners[sub._id] = sub._cb  # noqa: SLF001 - before anything can arrive
        await super()._send_subscribe(sub)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._listeners.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        callback = self._listeners.get(sid)
        if callback is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        found = read_headers(headers) if headers else None
        try:
            await callback(self._build_message(sid, subject, reply, data, found))
        except Exception as error:  # noqa: BLE001 - a bug must cost one message, not the reader
            log_failure("callback_failed", error, subject=text_of(subject))

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        return read_headers(headers) if headers else None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return Msg(self, text_of(subject), text_of(reply), data, headers, _sid=sid)

    async def _read_loop(self) -> None:
        await super()._read_loop()
        task = asyncio.current_task()
        cancelled = task is not None and task.cancelling() > 0
        if self._status == Client.CONNECTED and not cancelled:
            _log.error("bus_reader_ended")
            self._on_reader_ended()
