"""Moving a bus connection from a node on which appends fail to one on which they work.

A node that is cut off from its peers keeps its clients and answers reads and even conflicts; only
an append, which needs a quorum, reveals it. So each service puts a probe message into KV_REPLICAS
every two seconds if `bus.url` has more than one node. After three seconds without an
acknowledgement it probes the other nodes over separate connections and moves to the first that
acknowledges the same put: at most once in ten seconds, after a random delay, so that services do
not all move at once. If no node does, it stays. See docs/decisions/0037.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from shared.bus.answers import read_pub_ack
from shared.bus.core import BusError, BusUnavailableError
from shared.bus.jetstream import JetStreamBus
from shared.bus.servers import Servers, place
from shared.bus.users import inbox_prefix, public_key_of
from shared.log.envelope import Message
from shared.log.roles import Role
from shared.observe.logs import log_failure
from shared.runtime.process import background

_log = structlog.get_logger()
T = TypeVar("T")
_HEALTHY_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 0.5
_ACK_SECONDS: Final = 1.5
_PATIENCE_SECONDS: Final = 3.0
_GAP_SECONDS: Final = 10.0
_JITTER_SECONDS: Final = 0.5


@dataclass
class Mover:
    """Watches one bus connection; `run` it beside the service. `seed` is the role's nkey."""

    bus: JetStreamBus
    servers: Servers
    seed: str = field(repr=False)
    role: Role
    name: str
    _random: random.Random = field(default_factory=random.SystemRandom)
    _worked: float = 0.0
    _moved: float = float("-inf")
    _tasks: set[asyncio.Task[bool]] = field(default_factory=set)

    @property
    def subject(self) -> str:
        """The subject of this process's probes."""
        return f"$KV.REPLICAS.probe-{self.role}.{self.name}"

    async def run(self) -> None:
        """Probe forever, and move when another node works better; return if there is only one."""
        loop = asyncio.get_running_loop()
        self._worked = loop.time()
        while len(self.servers.urls) > 1:
            try:
                works = await self._here_works()
                now = loop.time()
                if works:
                    self._worked = now
                elif now - max(self._worked + _PATIENCE_SECONDS, self._moved + _GAP_SECONDS) > 0:
                    await self._move()
            except Exception as error:  # noqa: BLE001 - a bug must not end the watch
                log_failure("probe_failed", error)
                works = False
            await asyncio.sleep(_HEALTHY_SECONDS if works else _RETRY_SECONDS)

    async def retry_step(self, step: Callable[[], Awaitable[T]]) -> T:
        """Repeat a step of the start until the bus is available; move to another node if needed."""
        async with background(self.run()):
            last_detail = ""
            while True:
                try:
                    return await step()
                except BusUnavailableError as error:
                    if str(error) != last_detail:
                        last_detail = str(error)
                        _log.warning("start_waiting", detail=last_detail[:100])
                await asyncio.sleep(_RETRY_SECONDS)

    async def _here_works(self) -> bool:
        """Return whether a put is acknowledged in time; a late one still counts as bus health."""
        task = asyncio.create_task(self._put())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait((task,), timeout=_ACK_SECONDS)
        return task.done() and task.result()

    async def _put(self) -> bool:
        try:
            await self.bus.put(self.subject, Message(b"{}", {}))
        except BusError:
            return False
        return True

    async def _move(self) -> None:
        await asyncio.sleep(self._random.uniform(0, _JITTER_SECONDS))
        here = self.bus.client.connected_url
        others = [u for u in self.servers.urls if here is None or place(u) != place(here.geturl())]
        for url in self._random.sample(others, len(others)):
            if not await self._works(url):
                continue
            if await self._here_works():
                return
            _log.warning("bus_moved", server=place(url))
            self._moved = asyncio.get_running_loop().time()
            self.bus.client.set_server_pool([url, *(u for u in self.servers.urls if u != url)])
            await self.bus.client.force_reconnect()
            return

    async def _works(self, url: str) -> bool:
        """Return whether another node acknowledges this process's put."""
        client = Client()
        try:
            async with asyncio.timeout(2 * _ACK_SECONDS):
                await client.connect(
                    url, name=f"{self.name}-probe", nkeys_seed_str=self.seed, allow_reconnect=False,
                    connect_timeout=1, inbox_prefix=inbox_prefix(public_key_of(self.seed)),
                    error_cb=_ignore,
                )  # fmt: skip
                answer = await client.request(self.subject, b"{}", timeout=_ACK_SECONDS)
            return read_pub_ack(answer.data).error is None
        except (OSError, NatsError, BusError, TimeoutError):
            return False
        finally:
            await client.close()


async def _ignore(_: Exception) -> None:
    """Ignore connection errors: an unreachable node counts as one that does not work."""
