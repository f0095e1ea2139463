"""Slow, silent and too many clients, over real sockets: the others are served."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared import limits
from shared.runtime.connections import Connection, Connections, Phase, Shares

pytestmark = pytest.mark.slow

SERVER = Path(__file__).parent / "slow_server.py"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
REQUEST = HEAD + b"0123456789"
EXPECTING = HEAD.replace(b"Host", b"Expect: 100-continue\r\nHost")
BEGINNINGS = {"nothing": b"", "half a head": b"POST / HTT", "half a body": HEAD + b"01234"}


@dataclass
class Server:
    """A server process, its address and its log."""

    address: tuple[str, int]
    log: Path
    opened: list[socket.socket] = field(default_factory=list)

    def connect(self, data: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
        """A client that sends this much."""
        client = socket.create_connection(self.address, 20, (source, 0))
        self.opened.append(client)
        client.sendall(data)
        return client

    def ask(self, source: str = "127.0.0.1") -> bytes:
        """The status line of a whole request's answer."""
        with socket.create_connection(self.address, 10, (source, 0)) as client:
            client.sendall(REQUEST)
            return client.recv(65536).split(b"\r\n")[0]

    def logged(self, event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]


def served(client: socket.socket) -> None:
    """A whole request is answered on this connection."""
    client.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"\r\n\r\n10"):
        answer += client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")


@contextmanager
def serving(log: Path, *arguments: int) -> Iterator[Server]:
    """A server with these limits: descriptors (0: as they are), connections, unfinished."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, log.open("w") as sink:
        command = [sys.executable, str(SERVER), str(listener.fileno()), *map(str, arguments)]
        process = subprocess.Popen(
            command, pass_fds=[listener.fileno()], stderr=sink, cwd=Path.cwd(),
            env={"PYTHONPATH": str(Path.cwd())},
        )  # fmt: skip
        server = Server(listener.getsockname(), log)
        with ExitStack() as stack:
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            assert server.ask("127.0.0.3") == b"HTTP/1.1 200 OK"
            try:
                yield server
            finally:
                for client in server.opened:
                    client.close()


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_1100_slow_clients_against_1024_descriptors_leave_the_others_served(
    tmp_path: Path, beginning: str
) -> None:
    with serving(tmp_path / "log", 1024, 100_000, 100_000) as server:
        for _ in range(1100):
            server.connect(BEGINNINGS[beginning])
        for source in ("127.0.0.1", "127.0.0.2"):
            for _ in range(20):
                assert server.ask(source) == b"HTTP/1.1 200 OK"
        (full, *_) = server.logged("connection_limit_reached")
        assert full["descriptors"] == 1024
        assert not server.logged("accept_failed")


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    """It begins at 512: 600 connections fit all the same."""
    with serving(tmp_path / "log", 1024, 100_000, 100_000) as server:
        clients = [server.connect() for _ in range(600)]
        for client in (clients[0], clients[-1]):
            served(client)


def test_a_source_beyond_its_share_loses_its_own_longest_silent_connection(tmp_path: Path) -> None:
    with serving(tmp_path / "log", 0, 4, 100) as server:
        others = [server.connect(source="127.0.0.2") for _ in range(4)]
        mine = [server.connect() for _ in range(4)]
        served(mine[0])  # not silent: the second is now the oldest
        server.connect()
        assert mine[1].recv(1) == b""
        for client in (mine[0], mine[2], *others):
            served(client)


def test_a_source_beyond_its_unfinished_requests_loses_the_oldest_of_them(tmp_path: Path) -> None:
    with serving(tmp_path / "log", 0, 100, 2) as server:
        other = server.connect(EXPECTING, "127.0.0.2")
        mine = []
        for _ in range(3):  # one after the other: each is told to go on
            mine.append(server.connect(EXPECTING))
            assert mine[-1].recv(65536).startswith(b"HTTP/1.1 100")
        assert mine[0].recv(1) == b""
        assert other.recv(65536).startswith(b"HTTP/1.1 100")
        for client in (*mine[1:], other):
            client.sendall(b"0123456789")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_requests_that_do_not_wait_for_answers_are_few(tmp_path: Path) -> None:
    """A queued request takes a hundred times its bytes: thousands would fit into one read."""
    with serving(tmp_path / "log", 0, 100, 100) as server:
        patient = server.connect(REQUEST * limits.PIPELINED)
        answers = b""
        while answers.count(b"\r\n\r\n10") < limits.PIPELINED:
            answers += patient.recv(65536)
        served(patient)
        greedy = server.connect(REQUEST * 2000)
        answers = b""
        with suppress(ConnectionResetError):
            while got := greedy.recv(65536):
                answers += got
        assert answers.count(b"HTTP/1.1 200") <= limits.PIPELINED + 1
        served(server.connect())


# Deadlines: of a registry with a clock that the test moves


@dataclass
class FakeLink:
    """What a connection's transport was told."""

    said: list[str] = field(default_factory=list)
    waiting: int = 0
    paused: bool = False

    def abort(self) -> None:
        self.said.append("abort")

    def expire(self) -> None:
        self.said.append("expire")

    def unsent(self) -> int:
        return self.waiting

    def is_paused(self) -> bool:
        return self.paused


@dataclass
class Registry:
    """A registry of one connection, seconds after its beginning."""

    link: FakeLink = field(default_factory=FakeLink)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.connections = Connections(lambda: self.seconds, Shares())
        found = self.connections.accept("192.0.2.1", 9, self.link, Phase.QUIET)
        assert found is not None
        self.connection: Connection = found

    def at(self, seconds: float) -> list[str]:
        self.seconds = seconds
        self.connections.sweep()
        return self.link.said

    def enter(self, *phases: Phase) -> None:
        for phase in phases:
            self.connections.enter(self.connection, phase)


def test_a_silent_connection_and_a_slow_head_end_at_the_deadline_of_heads() -> None:
    for phases in ((), (Phase.HEAD,)):
        registry = Registry()
        registry.enter(*phases)
        registry.seconds = limits.HEAD_SECONDS - 1
        registry.connections.received(registry.connection)
        assert registry.at(limits.HEAD_SECONDS) == []
        assert registry.at(limits.HEAD_SECONDS + 1) == ["expire"]


def test_a_body_that_stalls_ends_early_and_one_that_trickles_at_its_deadline() -> None:
    stalled, trickling = Registry(), Registry()
    for registry in (stalled, trickling):
        registry.enter(Phase.HEAD, Phase.BODY)
    assert stalled.at(limits.BODY_STALL_SECONDS + 1) == ["expire"]
    for second in range(0, limits.BODY_SECONDS + 1, 5):
        assert trickling.at(second) == []
        trickling.connections.received(trickling.connection)
    assert trickling.at(limits.BODY_SECONDS + 1) == ["expire"]


def test_an_idle_connection_ends_after_a_while_and_work_never_does() -> None:
    idle, working = Registry(), Registry()
    idle.enter(Phase.HEAD, Phase.BODY, Phase.WORK, Phase.QUIET)
    working.enter(Phase.HEAD, Phase.BODY, Phase.WORK)
    assert idle.at(limits.IDLE_SECONDS) == []
    assert idle.at(limits.IDLE_SECONDS + 1) == ["expire"]
    assert working.at(100_000) == []


def test_a_reader_that_takes_nothing_of_an_answer_is_cut_off() -> None:
    registry = Registry(FakeLink(waiting=1000))
    registry.enter(Phase.HEAD, Phase.BODY, Phase.WORK)
    assert registry.at(0) == []
    registry.link.waiting = 900  # it takes a little
    assert registry.at(9) == []
    assert registry.at(9 + limits.BODY_STALL_SECONDS) == []
    assert registry.at(10 + limits.BODY_STALL_SECONDS) == ["abort"]


def test_a_client_is_not_late_while_the_server_itself_does_not_read() -> None:
    registry = Registry(FakeLink(paused=True))
    registry.enter(Phase.HEAD, Phase.BODY)
    assert registry.at(1000) == []


def test_what_is_late_and_does_not_go_is_cut_off() -> None:
    registry = Registry()
    assert registry.at(11) == ["expire"]
    assert registry.at(22) == ["expire", "abort"]


def test_when_the_process_is_full_of_work_a_new_connection_is_refused() -> None:
    connections = Connections(time.monotonic, Shares(), descriptors=5000)
    links = [FakeLink() for _ in range(3)]
    for number, link in enumerate(links[:2]):
        found = connections.accept(f"192.0.2.{number}", 9, link, Phase.QUIET)
        assert found is not None
        connections.enter(found, Phase.WORK)
    assert connections.accept("192.0.2.9", 4990, links[2], Phase.QUIET) is None
    assert [link.said for link in links] == [[], [], []]


def test_room_is_made_at_the_source_that_holds_most() -> None:
    connections = Connections(time.monotonic, Shares(), descriptors=5000)
    single, crowd = FakeLink(), [FakeLink() for _ in range(3)]
    connections.accept("192.0.2.1", 9, single, Phase.QUIET)
    for number, link in enumerate(crowd):  # of one /64: one source
        connections.accept(f"2001:db8::{number}", 10, link, Phase.QUIET)
    assert connections.accept("192.0.2.3", 4990, FakeLink(), Phase.QUIET) is not None
    assert [link.said for link in (single, *crowd)] == [[], ["abort"], [], []]


def test_a_trusted_proxy_has_no_share() -> None:
    connections = Connections(time.monotonic, Shares(1, 1), exempt=lambda a: a == "192.0.2.1")
    links = [FakeLink() for _ in range(3)]
    for link in links:
        found = connections.accept("192.0.2.1", 9, link, Phase.QUIET)
        assert found is not None
        connections.enter(found, Phase.HEAD)
    assert all(link.said == [] for link in links)


def test_a_request_that_is_late_is_told_so(tmp_path: Path) -> None:
    """The one test that waits for a real deadline: of heads, and of bodies that stall."""
    with serving(tmp_path / "log", 0, 100, 100) as server:
        clients = [server.connect(data) for data in (b"POST / HTT", HEAD, b"")]
        told = [client.makefile("rb").read() for client in clients]
        assert [answer.split(b"\r\n")[0] for answer in told] == [
            b"HTTP/1.1 408 Request Timeout",
            b"HTTP/1.1 408 Request Timeout",
            b"",
        ]
