"""The connections of a process: limits by source, deadlines, file descriptors.

Theory of operation. A connection is always in one phase. In all phases but WORK the server waits
for the client, so these have deadlines, and such connections can be closed to make room. In WORK
the client waits for the server, and the services bound it themselves.

Room is made when a connection is accepted or a request begins. If the source has used up its share,
that source's longest silent connection is closed. If the whole process is full, or descriptors run
short, the longest silent connection of the source that holds most is closed. The new connection is
refused only if all are in WORK. So slow clients displace each other, and a client that sends its
request immediately is served.

Descriptors in use for other purposes are counted once a second. Between two counts the number of
an accepted socket is a second indicator, since the kernel assigns the lowest free one.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

import structlog

from shared.config.addresses import source_key
from shared.limits import (
    BODY_SECONDS,
    BODY_STALL_SECONDS,
    CONNECTIONS,
    DESCRIPTOR_RESERVE,
    HEAD_SECONDS,
    IDLE_SECONDS,
    UNFINISHED_REQUESTS,
)
from shared.observe.metrics import CONNECTIONS_CLOSED, CONNECTIONS_OPEN
from shared.runtime.descriptors import descriptor_limit, open_descriptors

_log = structlog.get_logger()
_REPORT_SECONDS: Final = 10.0


class Phase(StrEnum):
    """The phases of a connection: what it waits for."""

    HANDSHAKE = "handshake"
    QUIET = "quiet"
    HEAD = "head"
    BODY = "body"
    WORK = "work"
    CLOSING = "closing"


_UNFINISHED: Final = frozenset({Phase.HEAD, Phase.BODY})


class Closed(StrEnum):
    """Reasons why the server closed a connection; values are metric labels."""

    HEAD_DEADLINE = "head_deadline"
    BODY_DEADLINE = "body_deadline"
    IDLE = "idle"
    STALLED_READER = "stalled_reader"
    SOURCE_SHARE = "source_share"
    ROOM = "room"
    REFUSED = "refused"


class Link(Protocol):
    """The operations on a connection's transport that the registry needs."""

    def abort(self) -> None:
        """Close at once, discarding unsent bytes."""

    def expire(self) -> None:
        """Close because of a missed deadline; tell the client if a request had begun."""

    def unsent(self) -> int:
        """Return how many bytes of responses the client has not received yet."""

    def is_paused(self) -> bool:
        """Return whether the server itself has stopped reading."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Limits for one source: open connections, and unfinished requests among them."""

    connections: int = 1024
    unfinished: int = 256


@dataclass(slots=True, eq=False)
class Connection:
    """An accepted socket; times are in seconds of the registry's clock."""

    source: str
    link: Link
    phase: Phase
    since: float
    progress: float
    is_fresh: bool = True
    unsent: int = 0
    unsent_since: float = 0.0


@dataclass(slots=True)
class _Source:
    """The connections of one source; queues hold those that can be closed, longest silent first."""

    total: int = 0
    quiet: "OrderedDict[Connection, None]" = field(default_factory=OrderedDict)
    unfinished: "OrderedDict[Connection, None]" = field(default_factory=OrderedDict)

    def queue(self, phase: Phase) -> "OrderedDict[Connection, None] | None":
        if phase in _UNFINISHED:
            return self.unfinished
        return self.quiet if phase is not Phase.WORK else None

    def waiting(self) -> int:
        return len(self.quiet) + len(self.unfinished)

    def oldest(self) -> Connection | None:
        """Return the longest silent connection of those that can be closed."""
        first = [next(iter(q)) for q in (self.quiet, self.unfinished) if q]
        return min(first, key=lambda c: c.progress, default=None)


class Connections:
    """All connections of some listeners.

    `exempt` returns whether a peer has no limit of its own: a trusted proxy, whose clients all
    share its address.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        shares: Shares | None = None,
        exempt: Callable[[str], bool] = lambda _: False,
        descriptors: int | None = None,
    ) -> None:
        """Start without connections; `clock` returns seconds.

        `descriptors` is the process's limit, read from the system if None.
        """
        self.shares, self.exempt = shares or Shares(), exempt
        self._clock = clock
        self._last_descriptor = (descriptors or descriptor_limit()) - DESCRIPTOR_RESERVE
        self._all: set[Connection] = set()
        self._sources: dict[str, _Source] = {}
        self._unfinished = 0
        self._others = open_descriptors()
        self._reported = float("-inf")

    def accept(self, peer: str, descriptor: int, link: Link, phase: Phase) -> Connection | None:
        """Register an accepted socket; return None if there is no room for it."""
        source = "" if self.exempt(peer) else source_key(peer)
        held = self._sources.get(source)
        if source and held is not None and held.total >= self.shares.connections:
            if not self._close(held.oldest(), Closed.SOURCE_SHARE):
                return self._refused()
        elif self._is_full(descriptor):
            self._report()
            if not self._make_room():
                return self._refused()
        now = self._clock()
        connection = Connection(source, link, phase, now, now)
        self._all.add(connection)
        entry = self._sources.setdefault(source, _Source())
        entry.total += 1
        self._enter(entry, connection)
        CONNECTIONS_OPEN.inc()
        return connection

    def _is_full(self, descriptor: int) -> bool:
        held = len(self._all)
        used = max(descriptor, held + self._others)
        return used >= self._last_descriptor or held >= CONNECTIONS

    def drop(self, connection: Connection) -> None:
        """Remove a closed connection; do nothing if it was removed already."""
        if connection not in self._all:
            return
        self._all.remove(connection)
        entry = self._sources[connection.source]
        self._leave(entry, connection)
        entry.total -= 1
        if not entry.total:
            del self._sources[connection.source]
        CONNECTIONS_OPEN.dec()

    def enter(self, connection: Connection, phase: Phase) -> None:
        """Record a connection's new phase; make room if it begins a request."""
        if connection not in self._all:
            return
        entry = self._sources[connection.source]
        self._leave(entry, connection)
        connection.phase = phase
        connection.since = connection.progress = self._clock()
        connection.is_fresh = False
        if phase is Phase.HEAD:
            self._share_unfinished(connection.source, entry)
        self._enter(entry, connection)

    def received(self, connection: Connection) -> None:
        """Record that bytes arrived: the connection is now the last of its source to be closed."""
        if connection not in self._all:
            return
        connection.progress = self._clock()
        queue = self._sources[connection.source].queue(connection.phase)
        if queue is not None:
            queue.move_to_end(connection)

    def sweep(self) -> None:
        """Close connections past their deadline; call this about once a second."""
        now = self._clock()
        self._others = max(0, open_descriptors() - len(self._all))
        for connection in list(self._all):
            reason = self._overdue(connection, now)
            if reason is None:
                continue
            if connection.phase is Phase.CLOSING:
                connection.link.abort()
                continue
            CONNECTIONS_CLOSED.labels(reason).inc()
            if reason is Closed.STALLED_READER:
                connection.link.abort()
            else:
                connection.link.expire()
                self.enter(connection, Phase.CLOSING)

    def _overdue(self, connection: Connection, now: float) -> Closed | None:
        if self._is_stalled(connection, now):
            return Closed.STALLED_READER
        age, phase = now - connection.since, connection.phase
        if phase is Phase.WORK or connection.link.is_paused():
            return None
        if phase is Phase.BODY:
            late = age > BODY_SECONDS or now - connection.progress > BODY_STALL_SECONDS
            return Closed.BODY_DEADLINE if late else None
        if phase is Phase.QUIET and not connection.is_fresh:
            return Closed.IDLE if age > IDLE_SECONDS else None
        return Closed.HEAD_DEADLINE if age > HEAD_SECONDS else None

    @staticmethod
    def _is_stalled(connection: Connection, now: float) -> bool:
        """Return whether the client has stopped receiving a response."""
        unsent = connection.link.unsent()
        if not unsent or unsent != connection.unsent:
            connection.unsent, connection.unsent_since = unsent, now
            return False
        return now - connection.unsent_since > BODY_STALL_SECONDS

    def _share_unfinished(self, source: str, entry: _Source) -> None:
        if source and entry.unfinished and len(entry.unfinished) >= self.shares.unfinished:
            self._close(next(iter(entry.unfinished)), Closed.SOURCE_SHARE)
        elif self._unfinished >= UNFINISHED_REQUESTS:
            fullest = max(self._sources.values(), key=lambda s: len(s.unfinished))
            self._close(next(iter(fullest.unfinished)), Closed.ROOM)

    def _make_room(self) -> bool:
        fullest = max(self._sources.values(), key=_Source.waiting, default=None)
        return fullest is not None and self._close(fullest.oldest(), Closed.ROOM)

    def _close(self, connection: Connection | None, reason: Closed) -> bool:
        if connection is None:
            return False
        CONNECTIONS_CLOSED.labels(reason).inc()
        self.drop(connection)
        connection.link.abort()
        return True

    @staticmethod
    def _refused() -> Connection | None:
        CONNECTIONS_CLOSED.labels(Closed.REFUSED).inc()
        return None

    def _enter(self, entry: _Source, connection: Connection) -> None:
        queue = entry.queue(connection.phase)
        if queue is not None:
            queue[connection] = None
        self._unfinished += connection.phase in _UNFINISHED

    def _leave(self, entry: _Source, connection: Connection) -> None:
        queue = entry.queue(connection.phase)
        if queue is not None:
            queue.pop(connection, None)
        self._unfinished -= connection.phase in _UNFINISHED

    def _report(self) -> None:
        """Log that the process is full, at most once in ten seconds."""
        now = self._clock()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            limit = self._last_descriptor + DESCRIPTOR_RESERVE
            _log.error("connection_limit_reached", open=len(self._all), descriptors=limit)
