"""Parsing of nats-server's replies to appends and direct gets, from untrusted headers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from nats.aio.msg import Msg

from shared.bus.client import DESCRIPTION, STATUS
from shared.bus.core import BusRefusedError, BusUnavailableError, Size
from shared.limits import EVENT_BYTES
from shared.log.envelope import Stored

WRONG_LAST_SEQUENCE: Final = 10071
MAX_PER_SUBJECT: Final = 10077
IN_FLIGHT: Final = 10164  # an append on the subject awaits its quorum: neither stored nor lost
_NO_RESPONDERS: Final = "503"
_NOT_FOUND: Final = "404"
_BAD_REQUEST: Final = 400


class PubAckFailure(msgspec.Struct, frozen=True):
    """The error part of a PubAck: HTTP-like code, JetStream error code, description."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class PubAck(msgspec.Struct, frozen=True):
    """The server's reply to an append."""

    seq: int = 0
    error: PubAckFailure | None = None


_PUB_ACK: Final = msgspec.json.Decoder(PubAck)


def read_pub_ack(data: bytes) -> PubAck:
    """Parse a PubAck; raise `BusUnavailableError` if the bytes are not one."""
    try:
        return _PUB_ACK.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BusUnavailableError("not a PubAck") from None


class _Config(msgspec.Struct, frozen=True):
    """A stream's configured size limit; -1 means unlimited."""

    max_bytes: int


class _State(msgspec.Struct, frozen=True):
    """A stream's current size."""

    bytes: int


class _Info(msgspec.Struct, frozen=True):
    """The part of a STREAM.INFO reply that is used here."""

    config: _Config
    state: _State


_INFO: Final = msgspec.json.Decoder(_Info)


def read_size(data: bytes) -> Size:
    """Return the size in a STREAM.INFO reply; raise `BusUnavailableError` for anything else."""
    try:
        info = _INFO.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BusUnavailableError("not stream info") from None
    return Size(info.state.bytes, max(0, info.config.max_bytes))


def failure_of(error: PubAckFailure) -> BusUnavailableError | BusRefusedError:
    """Return the exception that an append's error means for the caller.

    Code 400 is about the message itself (too large, a header the stream forbids). Codes 500 and 503
    are about the server (no leader, no space), and a retry may succeed.
    """
    if error.code == _BAD_REQUEST and error.err_code != IN_FLIGHT:
        return BusRefusedError(error.description)
    return BusUnavailableError(error.description)


def check_size(subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
    """Raise `BusRefusedError` for an event over EVENT_BYTES; the server would refuse it late."""
    size = len(payload) + sum(len(name) + len(value) + 4 for name, value in headers.items())
    if size > EVENT_BYTES:
        kind = subject.rpartition(".")[2]
        raise BusRefusedError(f"an event of {size} bytes for stage {kind} is over {EVENT_BYTES}")


def nobody_listens(msg: Msg) -> bool:
    """Return whether the server reports that nothing listens on a subject.

    A stored message never counts as that report, whatever status its publisher gave it.
    """
    headers = msg.headers or {}
    return headers.get(STATUS) == _NO_RESPONDERS and "Nats-Sequence" not in headers


def stored_in(msg: Msg) -> Stored | None:
    """Return the message in a direct get's reply, or None if the stream has no such message.

    Raises `BusUnavailableError` for any other reply.
    """
    headers = msg.headers or {}
    if "Nats-Sequence" not in headers:
        if headers.get(STATUS) == _NOT_FOUND:
            return None
        raise BusUnavailableError("direct get: " + headers.get(DESCRIPTION, "no message"))
    try:
        return Stored(
            headers["Nats-Subject"],
            msg.data,
            headers,
            int(headers["Nats-Sequence"]),
            _nanoseconds(headers["Nats-Time-Stamp"]),
        )
    except (KeyError, ValueError):
        raise BusUnavailableError("direct get: the answer does not parse") from None


def _nanoseconds(stamp: str) -> int:
    """Convert an RFC 3339 time with up to nine decimals to Unix nanoseconds."""
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(seconds).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)
