"""HTTP on accepted sockets: uvicorn's protocol with deadlines, and the accept loop."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from shared.limits import BACKLOG, HEAD_BYTES, HEAD_SECONDS, PIPELINED
from shared.observe.logs import log_failure
from shared.runtime.connections import Connection, Connections, Phase

CLIENT_CERTIFICATE: Final = "scepstream.client_certificate"
CLIENT: Final = "scepstream.client"
_ACCEPTED_AT_ONCE: Final = 64
_PAUSE_SECONDS: Final = 0.1
_FIRST_BYTES: Final = 16384
_FULL: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def closing_answer(status: HTTPStatus, sentence: str, *headers: str) -> bytes:
    """Return a response that closes the connection, to be written without the application."""
    length = f"content-length: {len(sentence) + 1}"
    first = f"HTTP/1.1 {status.value} {status.phrase}"
    lines = (first, "content-type: text/plain", length, "connection: close")
    return ("\r\n".join((*lines, *headers, "", sentence)) + "\n").encode()


_TIMEOUT: Final = closing_answer(HTTPStatus.REQUEST_TIMEOUT, "the request took too long")
_BUSY: Final = closing_answer(
    HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", "retry-after: 5"
)
_log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Client:
    """The client of a connection, as the application sees it in scope[CLIENT]."""

    gone: bool = False
    _tasks: "set[asyncio.Task[Any]]" = field(default_factory=set)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Cancel the current task when the client disconnects within the block."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def lost(self) -> None:
        """Mark the client as gone and cancel the tasks that work for it."""
        self.gone = True
        for task in list(self._tasks):
            task.cancel()


class _TooManyError(Exception):
    """Raised for a request beyond the limit of pipelined requests on one connection."""


# Returns the response to a complete request if it is at hand, None to handle it in the usual way.
Shortcut = Callable[[bytes], bytes | None]


class EdgeProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a limit on everything that a client can prolong.

    The size of head, chunk framing and trailers is limited here, because the application limits
    the body and sees none of these. The registry knows the connection's phase and its deadlines.
    """

    _around = 0
    _body = 0
    _is_reading = False

    def __init__(
        self,
        entry: "_Link",
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        shortcut: Shortcut | None = None,
    ) -> None:
        """Take over an accepted connection."""
        super().__init__(config, server_state, app_state, loop)
        self._entry, self._remote, self._shortcut = entry, Client(), shortcut

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, after the TLS handshake if there is one."""
        super().connection_made(transport)
        self._entry.begin(self, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection, and cancel tasks that still work for it."""
        super().connection_lost(exc)
        self._remote.lost()
        self._entry.end()

    def data_received(self, data: bytes) -> None:
        """Count the bytes outside the body; close a connection that sends too many of them."""
        before = self._body
        self._entry.received()
        if self._shortcut is not None and self._is_answered(data):
            return
        super().data_received(data)
        self._around += len(data) - (self._body - before)
        if self._around > HEAD_BYTES:
            self.transport.close()

    def _is_answered(self, data: bytes) -> bool:
        """Answer a whole request by the shortcut, if nothing else is under way."""
        assert self._shortcut is not None
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self._is_reading or self.pipeline or self.flow.write_paused:
            return False
        try:
            answer = self._shortcut(data)
        except Exception as error:  # noqa: BLE001 - a bug costs the shortcut, not the connection
            log_failure("shortcut_failed", error)
            return False
        if answer is None:
            return False
        self.transport.write(answer)
        self._entry.enter(Phase.QUIET)
        return True

    def on_message_begin(self) -> None:
        """Begin a request; put the client and its TLS certificate, if any, into the scope."""
        if len(self.pipeline) >= PIPELINED:  # the error stops the parser within a read
            raise _TooManyError
        self._around, self._is_reading = 0, True
        super().on_message_begin()
        self.scope[CLIENT] = self._remote  # type: ignore[typeddict-unknown-key]  # a key of ours
        tls = self.transport.get_extra_info("ssl_object")
        if tls is not None and tls.context.verify_mode is not ssl.CERT_NONE:
            self.scope[CLIENT_CERTIFICATE] = tls.getpeercert(binary_form=True)  # type: ignore[typeddict-unknown-key]  # a key of ours
        self._entry.enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        """Let the application begin; the body may still be arriving."""
        super().on_headers_complete()
        self._entry.enter(Phase.BODY)

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on to the application."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record that the request is complete: from now on the client waits for the server."""
        super().on_message_complete()
        self._is_reading = False
        self._entry.enter(Phase.QUIET if self.cycle.response_complete else Phase.WORK)

    def on_response_complete(self) -> None:
        """Wait for the next request, unless the rest of this one is still arriving."""
        super().on_response_complete()
        # The registry ends idle connections; uvicorn's timer would keep a closed one in memory.
        self._unset_keepalive_if_required()
        if not self._is_reading and self.cycle.response_complete:
            self._entry.enter(Phase.QUIET)

    def expire(self) -> None:
        """Respond 408 to a request that has begun, and close."""
        if self._is_reading and not self.pipeline:
            cycle = self.cycle
            if cycle is None or cycle.response_complete or not cycle.response_started:
                self.transport.write(_TIMEOUT)
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.transport.close()


class _Link:
    """An accepted socket from accept to close: TLS handshake, protocol, end."""

    def __init__(self, sock: socket.socket, connections: Connections) -> None:
        self._sock, self._connections = sock, connections
        self._connection: Connection | None = None
        self._protocol: EdgeProtocol | None = None
        self._transport: asyncio.Transport | None = None
        self.connecting: asyncio.Task[None] | None = None

    def admit(self, peer: str, phase: Phase) -> bool:
        self._connection = self._connections.accept(peer, self._sock.fileno(), self, phase)
        return self._connection is not None

    def begin(self, protocol: EdgeProtocol, transport: asyncio.Transport) -> None:
        self._protocol, self._transport = protocol, transport

    def received(self) -> None:
        assert self._connection is not None
        self._connections.received(self._connection)

    def enter(self, phase: Phase) -> None:
        assert self._connection is not None
        self._connections.enter(self._connection, phase)

    def end(self) -> None:
        if self._connection is not None:
            self._connections.drop(self._connection)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        elif self.connecting is not None:
            self.connecting.cancel()

    def expire(self) -> None:
        if self._protocol is not None:
            self._protocol.expire()
        else:
            self.abort()

    def unsent(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def is_paused(self) -> bool:
        return self._protocol is not None and self._protocol.flow.read_paused


MakeProtocol = Callable[["_Link"], EdgeProtocol]


class Overload(Protocol):
    """Refuses whole requests before they cost a connection, an HTTP parser and a task (0.3 ms)."""

    def is_busy(self) -> bool:
        """Return whether there may be anything to refuse; called for every connection."""

    def refuse(self, received: bytes) -> bytes | None:
        """Return the refusal of a new connection's first bytes, or None to serve it normally."""


class Acceptor:
    """Accepts connections from a listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: MakeProtocol,
        tls: ssl.SSLContext | None,
        connections: Connections,
        overload: Overload | None = None,
    ) -> None:
        """Start to accept connections at once."""
        self._listener, self._make_protocol, self._tls = listener, make_protocol, tls
        self._connections, self._overload = connections, overload
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Stop accepting."""
        self._is_closed = True
        self._loop.remove_reader(self._listener.fileno())

    async def wait_closed(self) -> None:
        """Cancel handshakes in progress and wait until they have ended."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _FULL:  # the reserve is used up: wait until closed ones are freed
                    _log.error("accept_failed", error=errno.errorcode[error.errno or 0])
                    self._loop.remove_reader(self._listener.fileno())
                    self._loop.call_later(_PAUSE_SECONDS, self._resume)
                    return
                continue  # this connection is already broken
            self._take(sock, peer[0] if isinstance(peer, tuple) else "")

    def _take(self, sock: socket.socket, peer: str) -> None:
        sock.setblocking(False)
        if self._overload is not None and self._overload.is_busy() and self._is_refused(sock):
            sock.close()
            return
        link = _Link(sock, self._connections)
        if not link.admit(peer, Phase.QUIET if self._tls is None else Phase.HANDSHAKE):
            if self._tls is None:
                with suppress(OSError):
                    sock.send(_BUSY)
            sock.close()
            return
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = link.connecting = self._loop.create_task(self._connect(sock, link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_refused(self, sock: socket.socket) -> bool:
        """Refuse a request without serving its connection, if it has arrived completely."""
        assert self._overload is not None
        try:
            answer = self._overload.refuse(sock.recv(_FIRST_BYTES, socket.MSG_PEEK))
        except OSError:
            return False  # nothing arrived yet, or the connection broke: handled in the usual way
        except Exception as error:  # noqa: BLE001 - a bug must not stop the accept loop
            log_failure("refusal_failed", error)
            return False
        if answer is None:
            return False
        with suppress(OSError):
            sock.recv(_FIRST_BYTES)  # closing with unread bytes would reset the connection
            sock.send(answer)
        return True

    async def _connect(self, sock: socket.socket, link: _Link) -> None:
        options = {"ssl_handshake_timeout": float(HEAD_SECONDS)} if self._tls is not None else {}
        try:
            make = partial(self._make_protocol, link)
            await self._loop.connect_accepted_socket(make, sock, ssl=self._tls, **options)
        except (OSError, asyncio.CancelledError):  # not TLS, broken, or closed to make room
            link.end()
            sock.close()
