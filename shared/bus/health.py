"""Whether each stream accepts this process's appends, judged by the result of the last one.

nats-server keeps a write error: a stream that hit a full disk answers no more appends, even after
there is room again, until the server is restarted. Other streams, reads and even conflicts still
work meanwhile, so only an append to the stream itself can tell. See docs/decisions/0033.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.bus.core import AppendConflictError, BusUnavailableError
from shared.log.streams import stream_of

_log = structlog.get_logger()
TAKES_NO_APPENDS: Final = "rejects appends"
# How long a failure counts if nothing was appended since. A process that is not ready may have
# nothing left to append, and would otherwise never become ready again.
_BELIEVED_SECONDS: Final = 30.0
_FIRST_GAP_SECONDS: Final = 60.0
_MAX_GAP_SECONDS: Final = 3600.0


@dataclass
class _Failing:
    """A stream whose appends fail: since when, the last time, and when to log it again."""

    since: float
    last: float
    gap: float
    say_next: float


@dataclass
class AppendHealth:
    """Tracks whether appends succeed, by stream; `clock` returns monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    _failing: dict[str, _Failing] = field(default_factory=dict)

    @contextmanager
    def watching(self, subject: str) -> Iterator[None]:
        """Record the result of an append to this subject; a conflict says nothing about health."""
        stream = _stream(subject)
        try:
            yield
        except BusUnavailableError as error:
            self._failed(stream, error)
            raise
        except (AppendConflictError, asyncio.CancelledError):
            raise
        else:
            self._stored(stream)

    def problems(self) -> list[str]:
        """Return a sentence for each stream whose last append failed."""
        believed = self.clock() - _BELIEVED_SECONDS
        return [
            f"{stream} {TAKES_NO_APPENDS}"
            for stream, failing in sorted(self._failing.items())
            if failing.last > believed
        ]

    def _failed(self, stream: str, error: Exception) -> None:
        now = self.clock()
        failing = self._failing.get(stream)
        if failing is None or failing.last < now - _BELIEVED_SECONDS:
            failing = self._failing[stream] = _Failing(now, now, _FIRST_GAP_SECONDS, now)
        failing.last = now
        if now >= failing.say_next:
            seconds = round(now - failing.since)
            _log.error("append_failed", stream=stream, seconds=seconds, detail=str(error)[:200])
            failing.say_next = now + failing.gap
            failing.gap = min(failing.gap * 2, _MAX_GAP_SECONDS)

    def _stored(self, stream: str) -> None:
        failing = self._failing.pop(stream, None)
        if failing is not None:
            _log.info(
                "append_recovered", stream=stream, seconds=round(self.clock() - failing.since)
            )


def _stream(subject: str) -> str:
    """Return the stream of a subject, which may be a key of a KV bucket."""
    tokens = subject.split(".")
    if tokens[0] == "$KV":
        return f"KV_{tokens[1]}"
    return stream_of(subject) or tokens[0]
