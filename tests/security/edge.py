"""What anybody can do to a port: many connections from many addresses, and any bytes on them."""

import contextlib
import itertools
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from tests.support.requests import Endpoint

CONNECT_SECONDS: Final = 3.0


def sources(first: int = 2, count: int = 8) -> list[str]:
    """Addresses of attackers; honest devices have others."""
    return [f"127.0.0.{first + index}" for index in range(count)]


@dataclass
class Crowd:
    """Connections to a port, opened in turn from these addresses and held."""

    address: tuple[str, int]
    sources: Sequence[str]
    sockets: list[socket.socket] = field(default_factory=list)
    not_let_in: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.close()

    def open(self, count: int, first: bytes = b"") -> None:
        """So many more connections, and these first bytes on each."""
        for source in itertools.islice(itertools.cycle(self.sources), count):
            try:
                each = socket.create_connection(
                    self.address, timeout=CONNECT_SECONDS, source_address=(source, 0)
                )
            except OSError:
                self.not_let_in += 1
                continue
            each.setblocking(False)
            self.sockets.append(each)
            _send(each, first)

    def trickle(self, parts: Iterator[bytes], seconds: float, pause: float = 0.5) -> None:
        """A little more on every connection, again and again."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            part = next(parts)
            for each in self.sockets:
                _send(each, part)
            time.sleep(pause)

    def still_open(self) -> int:
        """How many the server has not hung up on."""
        return sum(not _hung_up(each) for each in self.sockets)

    def wait_closed(self, seconds: float, left: int = 0) -> int:
        """How many are open in the end, waiting so long for the server to close them."""
        deadline = time.monotonic() + seconds
        while (found := self.still_open()) > left and time.monotonic() < deadline:
            time.sleep(0.2)
        return found


def _send(each: socket.socket, data: bytes) -> None:
    """What does not go is not wanted."""
    with contextlib.suppress(OSError):
        each.send(data)


def _hung_up(each: socket.socket) -> bool:
    try:
        while each.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def exchange(
    address: tuple[str, int], data: bytes, source: str = "127.0.0.2", seconds: float = 10.0
) -> bytes:
    """Send these bytes, hang up our half, and read what comes until the end or the deadline."""
    deadline = time.monotonic() + seconds
    answer = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(
            address, timeout=CONNECT_SECONDS, source_address=(source, 0)
        ) as each,
    ):
        each.sendall(data)
        while (left := deadline - time.monotonic()) > 0:
            each.settimeout(left)
            if not (got := each.recv(1 << 16)):
                break
            answer += got
    return answer


def post_head(endpoint: Endpoint, length: int, *more: bytes) -> bytes:
    """The head of a PKIOperation."""
    return b"".join(
        (
            f"POST {endpoint.path}?operation=PKIOperation HTTP/1.1\r\n".encode(),
            b"Host: scep\r\nContent-Type: application/x-pki-message\r\n",
            f"Content-Length: {length}\r\n".encode() if length >= 0 else b"",
            *(line + b"\r\n" for line in more),
            b"\r\n",
        )
    )


def flood(
    address: tuple[str, int], data: bytes, sources: Sequence[str], seconds: float, width: int = 20
) -> int:
    """The same bytes on new connections as fast as they are taken; how many were opened."""
    deadline, opened = time.monotonic() + seconds, 0
    chooser = selectors.DefaultSelector()
    cycle = itertools.cycle(sources)
    while time.monotonic() < deadline:
        while len(chooser.get_map()) < width:
            with contextlib.suppress(OSError):
                each = socket.create_connection(
                    address, timeout=CONNECT_SECONDS, source_address=(next(cycle), 0)
                )
                each.setblocking(False)
                _send(each, data)
                chooser.register(each, selectors.EVENT_READ)
                opened += 1
        for key, _ in chooser.select(0.05):
            chooser.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]  # sockets alone are registered
    for key in list(chooser.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]  # as above
    chooser.close()
    return opened
