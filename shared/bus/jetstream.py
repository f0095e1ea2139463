"""The bus over a nats-server connection: one reply inbox with plain futures, pull consumers."""

import asyncio
import json
import math
import secrets
import signal
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

import structlog
from nats.aio.msg import Msg
from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError

from shared.bus.answers import (
    MAX_PER_SUBJECT,
    WRONG_LAST_SEQUENCE,
    check_size,
    failure_of,
    nobody_listens,
    read_pub_ack,
    read_size,
    stored_in,
)
from shared.bus.away import Away
from shared.bus.client import TolerantClient
from shared.bus.core import (
    AppendConflictError,
    BusRefusedError,
    BusUnavailableError,
    Consumption,
    NobodyListensError,
    NotAllowedError,
    OnDelivery,
    OnHint,
    Size,
    expect_header,
    ttl_header,
)
from shared.bus.health import AppendHealth
from shared.bus.leader import LeaderReads
from shared.bus.pull import PullConsumption
from shared.bus.refusals import refused_by
from shared.bus.servers import Servers
from shared.bus.topology import size_subject
from shared.bus.users import inbox_prefix, public_key_of
from shared.log.envelope import Message, Stored
from shared.log.streams import stream_of
from shared.observe.tracing import carrier

_log = structlog.get_logger()
_SWEEP_SECONDS: Final = 0.5
_RIGHTS_SECONDS: Final = 0.2
_ID_BYTES: Final = 12


@dataclass(slots=True)
class _PendingReply:
    """An outstanding request: its subject, the caller's future, the sweeps it waits for."""

    subject: str
    future: asyncio.Future[Msg]
    sweeps: int


@dataclass
class JetStreamBus(LeaderReads):
    """A `Bus` over one NATS connection; create it with `connect`. `timeout` is in seconds."""

    client: TolerantClient
    timeout: float
    replicated: bool = False
    inbox: str = ""
    _asked: dict[str, _PendingReply] = field(default_factory=dict)
    unheard: set[str] = field(default_factory=set)  # subscriptions that the server refused
    _sweeper: asyncio.Task[None] | None = None
    _sweeps: int = 0
    _pulls: list[PullConsumption] = field(default_factory=list)
    health: AppendHealth = field(default_factory=AppendHealth)
    away: Away = field(default_factory=lambda: Away(()))

    @classmethod
    async def connect(
        cls,
        servers: Servers,
        seed: str,
        name: str,
        timeout: float = 5.0,  # noqa: ASYNC109 - one limit for all calls, kept by the sweeper
    ) -> Self:
        """Connect with the role's nkey `seed`; wait for a server as long as it takes."""
        # A process that no longer reads from the bus stops; its supervisor starts another.
        client = TolerantClient(partial(signal.raise_signal, signal.SIGTERM))
        bus = cls(client, timeout, servers.replicated, away=Away(servers.urls))
        while True:
            try:
                await client.connect(
                    servers.shuffled(),
                    dont_randomize=True,  # moving.py chooses which server to move to
                    name=name,
                    nkeys_seed_str=seed,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # it is compared with seconds
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    pending_size=0,  # otherwise publishes are buffered and stored after a reconnect
                    error_cb=bus._on_error,
                    inbox_prefix=inbox_prefix(public_key_of(seed)),
                    reconnected_cb=bus._on_reconnected,
                )
                break
            except (OSError, NatsError) as error:
                bus.away.note(error)
                await asyncio.sleep(0.2)
        bus.away.succeeded()
        bus.inbox = client.new_inbox()
        bus._sweeps = 1 + math.ceil(timeout / _SWEEP_SECONDS)
        await client.listen(f"{bus.inbox}.*", bus._on_answer)
        bus._sweeper = asyncio.create_task(bus._sweep())
        return bus

    @property
    def connected(self) -> bool:
        """Whether the connection is up."""
        return self.client.is_connected

    def problems(self) -> list[str]:
        """See `Bus.problems`."""
        if not self.connected:
            return ["bus"]
        pulls = [pull.problem for pull in self._pulls if pull.problem]
        return [*self.health.problems(), *pulls]

    async def append(self, subject: str, message: Message, ttl: int = 0) -> int:
        """See `Bus.append`."""
        return await self.replace(subject, message, 0, ttl)

    async def put(self, subject: str, message: Message, ttl: int = 0) -> int:
        """See `Bus.put`."""
        with self.health.watching(subject):
            return await self._store(subject, message.payload, message.headers | ttl_header(ttl))

    async def replace(self, subject: str, message: Message, last: int, ttl: int = 0) -> int:
        """See `Bus.replace`."""
        headers = message.headers | expect_header(last) | ttl_header(ttl)
        with self.health.watching(subject):
            return await self._store(subject, message.payload, headers)

    async def _store(self, subject: str, payload: bytes, headers: dict[str, str]) -> int:
        headers = headers | carrier()
        check_size(subject, payload, headers)
        answer = await self.request(subject, payload, headers)
        ack = read_pub_ack(answer.data)
        if ack.error is None:
            return ack.seq
        if ack.error.err_code == WRONG_LAST_SEQUENCE:
            raise AppendConflictError(subject)
        if ack.error.err_code == MAX_PER_SUBJECT and await self._holds(subject):
            raise AppendConflictError(subject)
        raise failure_of(ack.error)

    async def _holds(self, subject: str) -> bool:
        """Distinguish "the subject has its message" from "the stream is full": both are 10077."""
        stream = stream_of(subject)
        return stream is not None and await self.get_last(stream, subject) is not None

    async def get_last(self, stream: str, subject: str) -> Stored | None:
        """See `Bus.get_last`."""
        return stored_in(await self.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b""))

    async def get_sequence(self, stream: str, sequence: int) -> Stored | None:
        """See `Bus.get_sequence`."""
        return await self._get(stream, seq=sequence)

    async def get_next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """See `Bus.get_next`."""
        return await self._get(stream, seq=sequence, next_by_subj=subject)

    async def _get(self, stream: str, **wanted: str | int) -> Stored | None:
        body = json.dumps(wanted).encode()
        return stored_in(await self.request(f"$JS.API.DIRECT.GET.{stream}", body))

    async def size(self, stream: str) -> Size:
        """See `Bus.size`."""
        return read_size((await self.request(size_subject(stream), b"")).data)

    async def count(self, stream: str) -> int:
        """See `Bus.count`.

        STREAM.INFO does not work: the server looks for the stream in the calling account. The first
        reply of a batch says how many would follow.
        """
        body = json.dumps({"seq": 1, "batch": 1, "next_by_subj": ">"}).encode()
        answer = await self.request(f"$JS.API.DIRECT.GET.{stream}", body)
        if stored_in(answer) is None:
            return 0
        return 1 + int((answer.headers or {}).get("Nats-Num-Pending", "0"))

    async def hint(self, subject: str, message: Message) -> None:
        """See `Bus.hint`."""
        await self._publish(subject, message.payload, "", message.headers)

    async def on_hint(self, subject: str, callback: OnHint) -> None:
        """See `Bus.on_hint`."""

        async def deliver(msg: Msg) -> None:
            callback(msg.subject, msg.data, msg.headers or {})

        await self.client.listen(subject, deliver)

    async def consume(
        self, stream: str, durable: str, callback: OnDelivery, limit: int
    ) -> Consumption:
        """See `Bus.consume`."""
        pull = PullConsumption(self.client, stream, durable, callback, limit)
        self._pulls = [*(p for p in self._pulls if not p.stopped), pull]
        await pull.start()
        return pull

    async def close(self) -> None:
        """See `Bus.close`."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pull in self._pulls:
            await pull.stop()
        await self.client.close()

    async def request(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None
    ) -> Msg:
        """Publish and wait for the single reply; try once more if nothing listens.

        An account lacks its imports for a moment while nats-server reloads permissions. Raises
        `NobodyListensError` if nothing listens the second time either.
        """
        answer = await self._ask(subject, payload, headers)
        if nobody_listens(answer):
            await asyncio.sleep(_RIGHTS_SECONDS)
            answer = await self._ask(subject, payload, headers)
        if nobody_listens(answer):
            raise NobodyListensError(f"no responders on {subject}")
        return answer

    async def _ask(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> Msg:
        """Publish with a reply subject of our own that ends in a secret id."""
        key = secrets.token_hex(_ID_BYTES)
        asked = _PendingReply(subject, asyncio.get_running_loop().create_future(), self._sweeps)
        self._asked[key] = asked
        try:
            await self._publish(subject, payload, f"{self.inbox}.{key}", headers)
            return await asked.future
        finally:
            self._asked.pop(key, None)

    async def _publish(
        self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None
    ) -> None:
        if not self.client.is_connected:
            raise BusUnavailableError("not connected")
        try:
            await self.client.publish(subject, payload, reply, headers)
        except (MaxPayloadError, BadSubjectError) as error:
            raise BusRefusedError(type(error).__name__) from error
        except NatsError as error:
            raise BusUnavailableError(type(error).__name__) from error

    async def _on_answer(self, msg: Msg) -> None:
        asked = self._asked.pop(msg.subject.rpartition(".")[2], None)
        if asked is not None and not asked.future.done():
            asked.future.set_result(msg)

    async def _sweep(self) -> None:
        """Fail requests that were not answered in time: one timer for all of them.

        Time is counted in sweeps, not read from the clock: while the process or its machine stood
        still, answers arrived that have not been read yet. Nor does a sweep count that comes late.
        """
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(_SWEEP_SECONDS)
            is_late = loop.time() - began > 2 * _SWEEP_SECONDS
            for key, asked in list(self._asked.items()):
                asked.sweeps -= not is_late
                if asked.sweeps <= 0 or not self.client.is_connected:
                    self._asked.pop(key, None)
                    if not asked.future.done():
                        asked.future.set_exception(BusUnavailableError("no answer in time"))

    async def _on_error(self, error: Exception) -> None:
        """Handle permission violations and slow consumers, which are reported only here."""
        if not self.client.is_connected:
            self.away.note(error)
            return
        _log.warning("bus_error", error=type(error).__name__, detail=str(error)[:200])
        what, subject = refused_by(error)
        if what == "subscription":
            self.unheard.add(subject)
        for asked in self._asked.values() if what == "publish" else ():
            if asked.subject.lower() == subject and not asked.future.done():
                asked.future.set_exception(NotAllowedError(f"may not publish {asked.subject}"))

    async def _on_reconnected(self) -> None:
        self.away.succeeded()
        _log.info("bus_reconnected")
        for pull in self._pulls:
            await pull.restart()
