"""Send prepared requests to a server over keep-alive connections, with bounded retries."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Retries
from benchmarks.http1 import Connection, Endpoint, Response
from shared.scep.asn1 import PRINTABLE_STRING, SET, tlv
from shared.scep.pkimessage import PKI_STATUS

# Searched for as bytes: parsing would take CPU from the server while the clock runs.
_PENDING = PKI_STATUS + tlv(SET, tlv(PRINTABLE_STRING, b"3"))
_OK, _UNAVAILABLE = 200, 503


@dataclass(frozen=True, slots=True)
class Shot:
    """The last response to one request or None, the reason of its failure, time and attempts."""

    response: Response | None
    trouble: str
    seconds: float
    attempts: int


@dataclass(slots=True)
class Volley:
    """The results of one run."""

    shots: list[Shot | None]
    seconds: float = 0.0
    generator_cpu: float = 0.0
    connections: int = 0
    retries: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Gun:
    """How to send: the server, the number of clients, the time limit (seconds) of an attempt."""

    endpoint: Endpoint
    concurrency: int
    timeout: float
    retries: Retries


async def fire(gun: Gun, messages: Sequence[bytes]) -> Volley:
    """Send every message and measure; preparation is not timed, and garbage collection is off."""
    posts = [gun.endpoint.post(message) for message in messages]
    volley = Volley([None] * len(posts))
    queue = iter(enumerate(posts))
    gc.collect()
    gc.disable()
    cpu, clock = time.process_time(), time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(gun.concurrency, len(posts))):
                group.create_task(_Client(gun, volley).run(queue))
    finally:
        gc.enable()
    volley.seconds = time.perf_counter() - clock
    volley.generator_cpu = time.process_time() - cpu
    return volley


class _Client:
    """One of the concurrent clients; it takes requests from the queue until that is empty."""

    def __init__(self, gun: Gun, volley: Volley) -> None:
        self._gun, self._volley = gun, volley
        self._connection: Connection | None = None

    async def run(self, queue: Iterator[tuple[int, bytes]]) -> None:
        for index, post in queue:
            self._volley.shots[index] = await self._enroll(post)
        self._drop()

    async def _enroll(self, post: bytes) -> Shot:
        """Send the same bytes until there is a final answer or the retries are used up."""
        limits, start = self._gun.retries, time.perf_counter()
        attempt = 1
        while True:
            response, trouble = await self._attempt(post)
            spent = time.perf_counter() - start
            if not trouble or attempt >= limits.attempts or spent >= limits.seconds:
                return Shot(response, trouble, spent, attempt)
            self._volley.retries[trouble] += 1
            await asyncio.sleep(limits.pause_after(attempt))
            attempt += 1

    async def _attempt(self, post: bytes) -> tuple[Response | None, str]:
        """Return (response, reason to retry or "")."""
        try:
            async with asyncio.timeout(self._gun.timeout):
                response = await (await self._connected()).exchange(post)
        except TimeoutError:
            self._drop()
            return None, "timeout"
        except OSError:
            self._drop()
            return None, "connection lost"
        if response.status == _UNAVAILABLE:
            return response, "503"
        pending = response.status == _OK and _PENDING in response.body
        return response, "PENDING" if pending else ""

    async def _connected(self) -> Connection:
        if self._connection is None or not self._connection.usable:
            self._drop()
            self._connection = await Connection.open(self._gun.endpoint)
            self._volley.connections += 1
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
