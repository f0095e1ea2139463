"""Three real nats-servers as one cluster on 127.0.0.1; nodes can be killed, stopped and cut off.

Routes and clients go through small TCP proxies of the test's own, so that a link can hold back
or delay what it carries: a node that is cut off sees silence, as behind a broken switch.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from cli.up.ports import nats_port
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision, server_config
from shared.bus.servers import Servers
from shared.bus.users import User, public_key_of
from shared.log.roles import Role
from tests.support.nats import new_seed
from tests.support.system import wait_until

NAMES = ("a", "b", "c")
READY_SECONDS = 30.0
_CHUNK = 65536


class Link:
    """A TCP proxy in front of one port; `cut` and `delay` apply to both ways or one of them."""

    def __init__(self, target: int, loop: asyncio.AbstractEventLoop) -> None:
        self.target, self.loop = target, loop
        self.delay_there = self.delay_back = 0.0
        self._open = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), loop).result(10)

    async def _listen(self) -> int:
        self._open.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """End every connection and listen no more."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def cut(self) -> None:
        """Carry nothing any more; connections stay up, and new ones are silent too."""
        self.loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        """Carry again, what was held back first."""
        self.loop.call_soon_threadsafe(self._open.set)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._open.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers.append(back)
        ways = (
            (reader, back, lambda: self.delay_there),
            (there, writer, lambda: self.delay_back),
        )
        for source, sink, delay in ways:
            task = asyncio.create_task(self._carry(source, sink, delay))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        delay: Callable[[], float],
    ) -> None:
        """Bytes in order, each after the delay of when it came."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        writing = asyncio.create_task(self._write(queue, sink))
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                queue.put_nowait((self.loop.time() + delay(), data))
        queue.put_nowait((0.0, b""))
        await writing

    async def _write(
        self, queue: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while (item := await queue.get())[1]:
                await asyncio.sleep(max(0.0, item[0] - self.loop.time()))
                await self._open.wait()
                sink.write(item[1])
                await sink.drain()
        await self._open.wait()
        sink.close()


@dataclass
class Node:
    """One nats-server; `link` is where its clients connect."""

    name: str
    directory: Path
    port: int
    route_port: int
    link: Link
    config: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.link.port}"

    def start(self) -> None:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program is not None
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "-c", str(self.config)], stdout=log, stderr=log
            )

    def send(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)


@dataclass
class Cluster:
    """The nodes, and the links by who dials whom: of two routes the servers keep one."""

    nodes: dict[str, Node]
    routes: dict[tuple[str, str], Link]
    shards: tuple[str, ...] = ("0",)
    seeds: dict[Role, str] = field(default_factory=lambda: {role: new_seed() for role in Role})
    buses: list[JetStreamBus] = field(default_factory=list)

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(node.url for node in self.nodes.values())

    def isolate(self, name: str) -> None:
        """Cut a node off from its peers; its clients still reach it."""
        for pair, link in self.routes.items():
            if name in pair:
                link.cut()

    def reunite(self) -> None:
        for link in self.routes.values():
            link.heal()

    def slow_down(self, name: str, seconds: float) -> None:
        """What other nodes say reaches this one late; what it says leaves at once."""
        for (dialler, dialled), link in self.routes.items():
            if name == dialler:
                link.delay_back = seconds
            if name == dialled:
                link.delay_there = seconds

    async def provision(self) -> None:
        seed = self.seeds[Role.PROVISIONER]
        await provision(Servers(self.urls), seed, self.shards, 3)

    async def connect(self, role: Role, node: str, timeout: float = 5.0) -> JetStreamBus:
        """As this role, to this node alone."""
        servers = Servers((self.nodes[node].url,), replicated=True)
        seed = self.seeds[role]
        bus = await JetStreamBus.connect(servers, seed, f"{role}-{node}", timeout)
        self.buses.append(bus)
        return bus

    async def close(self) -> None:
        """Close every bus that was connected."""
        for bus in self.buses:
            await bus.close()

    async def leader(self, stream: str, among: tuple[str, ...] = NAMES) -> str:
        """The node that leads a stream, as one of these nodes sees it."""
        from nats.aio.client import Client  # noqa: PLC0415

        client = Client()
        seed = self.seeds[Role.PROVISIONER]
        await client.connect(self.nodes[among[0]].url, nkeys_seed_str=seed)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while time.monotonic() < deadline:
                with suppress(Exception):
                    info = await client.jetstream(timeout=2).stream_info(stream)
                    if info.cluster is not None and info.cluster.leader in among:
                        return info.cluster.leader
                await asyncio.sleep(0.1)
        finally:
            await client.close()
        raise AssertionError(f"{stream} has no leader among {among}")


@contextmanager
def nats_cluster(directory: Path, shards: tuple[str, ...] = ("0",)) -> Iterator[Cluster]:
    """Running nodes that know each other, not yet provisioned."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    cluster = _plan(directory, loop, shards)
    for node in cluster.nodes.values():
        node.start()
    try:
        for node in cluster.nodes.values():
            wait_until(lambda node=node: _is_ready(node), READY_SECONDS, f"nats node {node.name}")
        yield cluster
    finally:
        for node in cluster.nodes.values():
            node.thaw()
            node.kill()
        asyncio.run_coroutine_threadsafe(_stop(cluster, loop), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _stop(cluster: Cluster, loop: asyncio.AbstractEventLoop) -> None:
    """End the proxies, and what still waits in them."""
    for link in (*cluster.routes.values(), *(node.link for node in cluster.nodes.values())):
        await link.stop()
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _is_ready(node: Node) -> bool:
    return b"Server is ready" in (node.directory / f"{node.name}.log").read_bytes()


def _plan(directory: Path, loop: asyncio.AbstractEventLoop, shards: tuple[str, ...]) -> Cluster:
    nodes = {}
    for name in NAMES:
        port, route_port = nats_port(0), nats_port(0)
        config = directory / f"{name}.conf"
        nodes[name] = Node(name, directory, port, route_port, Link(port, loop), config)
    routes = {
        (one, other): Link(nodes[other].route_port, loop) for one, other in permutations(NAMES, 2)
    }
    cluster = Cluster(nodes, routes, shards)
    for name in NAMES:
        nodes[name].config.write_text(_config(cluster, name))
    return cluster


def _config(cluster: Cluster, name: str) -> str:
    """The configuration of one node: it dials every other one, through a link."""
    node = cluster.nodes[name]
    users = [User(role, public_key_of(seed)) for role, seed in cluster.seeds.items()]
    store, listen = node.directory / f"jetstream-{name}", f"127.0.0.1:{node.port}"
    common = server_config(users, cluster.shards, store, listen, "100ms")
    routes = ", ".join(
        f'"nats-route://127.0.0.1:{link.port}"'
        for (dialler, _), link in cluster.routes.items()
        if dialler == name
    )
    return f"""{common.replace("server_name: scepstream", f"server_name: {name}")}
cluster {{
  name: scepstream
  listen: "127.0.0.1:{node.route_port}"
  advertise: "127.0.0.1:1"
  no_advertise: true
  routes: [{routes}]
}}
"""
