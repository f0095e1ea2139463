"""Who gets a place, who is refused at once, and what becomes of work for clients that are gone."""

import asyncio
import heapq
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.admission import Admission, Gate, Rates, Turns
from services.gateway.app import Gateway
from services.gateway.enroll import Enroller
from services.gateway.refusals import CLIENT_GONE, RefusalLog, RefusedError
from services.gateway.settings import Limits
from shared import limits as bounds
from shared.ca.chains import ChainBook
from shared.log.envelope import encode
from shared.log.events.certificates import CaChain
from shared.log.subjects import chain_subject
from shared.observe.metrics import REQUESTS
from shared.runtime.edge import Client, EdgeProtocol
from shared.runtime.live import Live
from shared.runtime.process import HttpServer
from tests.support.messages import Identity
from tests.support.world import ISSUER, PROFILE, turn, until
from tests.unit.services.gateway.gateways import World, make_world

LIMITS = Limits(256 * 1024, 1000, 1000, 0.0)
SOURCE = "192.0.2.1"


# The gate: a queue in front of a server that ends 100 requests a second


@dataclass
class Queue:
    """Arrivals at a rate, and what became of them; times in simulated seconds."""

    gate: Gate = field(default_factory=Gate)
    capacity: float = 100.0
    free_at: float = 0.0
    ends: list[tuple[float, float]] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)

    def run(self, since: float, until: float, rate: float) -> None:
        for number in range(int((until - since) * rate)):
            self.arrive(since + number / rate)

    def arrive(self, now: float) -> bool:
        while self.ends and self.ends[0][0] <= now:
            ended, began = heapq.heappop(self.ends)
            self.gate.leave(ended, answered=True)
            self.waits.append((ended, ended - began))
        if self.gate.is_full(now, 2.0):
            return False
        self.gate.enter()
        self.free_at = max(self.free_at, now) + 1 / self.capacity
        heapq.heappush(self.ends, (self.free_at, now))
        return True

    def answered(self, since: float, until: float) -> int:
        return sum(since <= ended < until for ended, _ in self.waits)


@pytest.mark.parametrize("factor", [2, 5, 20])
def test_under_overload_as_many_are_answered_as_without_and_none_waits_long(factor: int) -> None:
    queue = Queue()
    queue.run(0, 30, queue.capacity * factor)
    queue.run(30, 60, queue.capacity * 0.5)

    assert queue.answered(5, 30) == pytest.approx(25 * queue.capacity, rel=0.05)
    assert max(wait for ended, wait in queue.waits if 10 < ended < 30) < 3.0
    assert max(wait for ended, wait in queue.waits if ended > 36) < 0.5  # as before


def test_below_its_capacity_nobody_is_refused() -> None:
    queue = Queue()
    assert all(queue.arrive(number / 90) for number in range(2000))


def test_a_gate_finds_out_that_the_services_are_back_or_faster() -> None:
    queue = Queue()
    queue.run(0, 10, 1000)
    queue.free_at = 40.0  # away for 30 s: nothing ends
    queue.run(10, 40, 1000)
    queue.capacity = 400.0
    queue.run(40, 80, 1000)
    assert queue.answered(60, 80) == pytest.approx(20 * 400, rel=0.05)


# Rates


def test_a_source_has_its_rate_and_burst_and_others_have_theirs() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    assert [rates.take("a", 2.0, 3) for _ in range(4)] == [0, 0, 0, 0.5]
    assert rates.take("b", 2.0, 3) == 0
    now[0] = 0.5
    assert rates.take("a", 2.0, 3) == 0
    assert rates.take("a", 2.0, 3) > 0
    now[0] = 1000.0
    assert [rates.take("a", 2.0, 3) > 0 for _ in range(4)] == [False, False, False, True]


def test_a_rate_of_zero_is_no_limit_and_what_is_no_address_has_none() -> None:
    rates = Rates(lambda: 0.0)
    assert not any(rates.take("a", 0.0, 1) for _ in range(10))
    assert not any(rates.take("", 1.0, 1) for _ in range(10))


def test_the_table_of_sources_does_not_grow_beyond_its_bound() -> None:
    rates = Rates(lambda: 0.0)
    for number in range(bounds.RATE_SOURCES + 10):
        rates.take(str(number), 1.0, 1)
    assert len(rates._buckets) == bounds.RATE_SOURCES


def test_a_whole_64_is_one_source() -> None:
    admission = Admission(lambda: 0.0)
    limits = replace(LIMITS, rate=1.0, burst=2)
    for host in (1, 2):
        admission.check(limits, PROFILE, f"2001:db8::{host}")
    with pytest.raises(RefusedError) as caught:
        admission.check(limits, PROFILE, "2001:db8::3")
    refusal = caught.value.refusal
    assert (refusal.status, refusal.reason, refusal.headers) == (
        503, "rate", (("retry-after", "1"),),
    )  # fmt: skip
    admission.check(limits, PROFILE, "2001:db8:0:1::1")


# Turns and clients that are gone


async def test_between_a_few_requests_everything_else_has_its_turn() -> None:
    turns, order = Turns(time.monotonic, at_once=2), []

    async def work(name: str) -> None:
        await turns.next(5)
        order.append(name)
        asyncio.get_running_loop().call_soon(order.append, "other")

    await asyncio.gather(*(work(name) for name in "abcde"))
    await turn()
    both = ["other", "other"]
    assert order == ["a", "b", *both, "c", "d", *both, "e", "other"]


async def test_turns_pass_between_two_batches_that_are_to_leave_room() -> None:
    turns, order = Turns(time.monotonic, at_once=2, pause=3), []

    async def work(name: str) -> None:
        await turns.next(5)
        order.append(name)

    async def others() -> None:
        for _ in range(6):
            await turn(1)
            order.append("-")

    await asyncio.gather(*(work(name) for name in "abcd"), others())

    assert "".join(order).startswith("ab---")
    assert order.index("c") + 1 == order.index("d")


async def test_a_request_that_comes_in_a_pause_waits_for_its_end() -> None:
    turns, begun = Turns(time.monotonic, at_once=1, pause=3), []

    async def work() -> None:
        await turns.next(5)
        begun.append(True)

    await turns.next(5)
    await turn(1)
    late = asyncio.create_task(work())
    await turn(1)
    assert not begun
    await asyncio.wait_for(late, 1)


async def test_for_a_second_after_a_refusal_batches_leave_room_for_refusing() -> None:
    """Under overload a refusal that comes soon is worth more than a batch."""
    times, one = [10.0], replace(LIMITS, in_flight=1)
    admission, pauses = Admission(lambda: times[-1]), []

    async def begin() -> None:
        async with admission.place(one, PROFILE, SOURCE, Client()):
            pauses.append(admission._turns.pause)
            with pytest.raises(RefusedError):
                admission.check(one, PROFILE, SOURCE)

    for seconds in (10.0, 10.9, 12.0):
        times.append(seconds)
        await begin()

    assert pauses[0] == pauses[2] == 0 < pauses[1]


async def test_nobody_joins_a_line_that_is_too_long_for_a_turn_in_time() -> None:
    """Else under overload most wait for a refusal, which then costs as much as an answer."""
    admission = Admission(lambda: 0.0)
    admission._turns._paused = 10**9  # nobody's turn comes
    line = int(256 * 0.4) + 1
    waiting = [asyncio.create_task(admission._turns.next(5)) for _ in range(line - 1)]
    await turn()
    assert not admission.is_full(LIMITS, PROFILE)
    waiting.append(asyncio.create_task(admission._turns.next(5)))
    await turn()

    assert admission.is_full(LIMITS, PROFILE)
    assert admission.is_overloaded()
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert not admission.is_full(LIMITS, PROFILE)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_line_is_as_long_as_turns_come_fast_and_no_slow_service_shortens_it() -> None:
    """A profile whose services hang answers nothing, and yet its requests take their turns."""
    tenths = itertools.count()  # a tenth of a second for each turn of the loop
    turns = Turns(lambda: next(tenths) / 10, at_once=50)
    await asyncio.gather(*(turns.next(5) for _ in range(1000)))

    assert turns._rate == pytest.approx(500, rel=0.2)


async def test_a_line_that_was_empty_for_long_is_not_taken_for_a_slow_one() -> None:
    now = 0.0
    turns = Turns(lambda: now, at_once=1)
    await asyncio.gather(*(turns.next(5) for _ in range(3)))
    now = 3600.0
    await asyncio.gather(*(turns.next(5) for _ in range(3)))

    assert int(turns._rate) == 256


async def test_a_task_that_is_cancelled_while_it_waits_does_not_stop_the_turns() -> None:
    turns = Turns(time.monotonic, at_once=1)
    tasks = [asyncio.create_task(turns.next(5)) for _ in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait_for(turns.next(5), 1)


async def test_a_client_that_is_gone_by_its_turn_is_not_worked_for() -> None:
    admission, client = Admission(lambda: 0.0), Client()
    client.lost()
    with pytest.raises(RefusedError) as caught:
        async with admission.place(LIMITS, PROFILE, SOURCE, client):
            raise AssertionError("worked")
    assert caught.value.refusal is CLIENT_GONE
    assert not admission._in_flight


async def test_who_waits_too_long_for_a_turn_is_refused_in_time_and_the_others_go_on() -> None:
    turns = Turns(time.monotonic, at_once=1, _taken=1)
    with pytest.raises(TimeoutError):
        await turns.next(0.01)
    turns._pass_on()
    await asyncio.wait_for(turns.next(1), 1)


async def test_who_goes_in_the_very_turn_that_is_his_holds_up_nobody() -> None:
    turns = Turns(time.monotonic, at_once=1, _taken=1)
    gone, next_one = (asyncio.create_task(turns.next(5)) for _ in range(2))
    await asyncio.sleep(0)
    turns._pass_on()
    gone.cancel()

    await asyncio.wait_for(next_one, 1)
    await asyncio.wait_for(turns.next(1), 1)


# The log of refusals


def test_a_flood_of_refusals_is_a_few_lines_a_second_that_count_the_rest() -> None:
    now = [100.0]
    log = RefusalLog(lambda: now[0])
    with structlog.testing.capture_logs() as lines:
        for _ in range(500):
            log.add(PROFILE, "overload")
        log.add(PROFILE, "no_profile")
        now[0] = 101.0
        log.add(PROFILE, "overload")
        log.add(PROFILE, "overload")

    of_overload = [line for line in lines if line["reason"] == "overload"]
    assert len(of_overload) == 22
    assert [line.get("unlogged", 0) for line in of_overload[-3:]] == [0, 480, 0]
    assert [line["reason"] for line in lines].count("no_profile") == 1


def test_a_flood_on_one_profile_hides_no_refusal_of_another() -> None:
    log = RefusalLog(lambda: 100.0)
    with structlog.testing.capture_logs() as lines:
        for _ in range(500):
            log.add("flooded", "bad_message")
        log.add("quiet", "bad_message", detail="no content")

    assert lines[-1]["profile"] == "quiet"
    assert "unlogged" not in lines[-1]


# Over real sockets


@dataclass
class SlowEnroller:
    """Answers when a test lets it; remembers what became of each message."""

    world: World
    release: asyncio.Event = field(default_factory=asyncio.Event)
    began: list[bytes] = field(default_factory=list)
    cancelled: list[bytes] = field(default_factory=list)
    refusals: RefusalLog = field(default_factory=lambda: RefusalLog(time.monotonic))

    async def answer(self, _: object, __: object, body: bytes, *___: str) -> bytes:
        self.began.append(body)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(body)
            raise
        return b"answer"


@dataclass
class Served:
    """A gateway on a socket."""

    gateway: Gateway
    enroller: SlowEnroller
    port: int

    async def send(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        return reader, writer

    def in_flight(self) -> int:
        return self.gateway.admission._in_flight.total()


def post(body: bytes, length: int | None = None) -> bytes:
    head = f"POST /scep/{PROFILE}?operation=PKIOperation HTTP/1.1\r\nHost: x\r\n"
    return f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def serve(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> Callable[..., Any]:
    """A gateway with these limits, and a profile with these values, on a real socket."""

    @asynccontextmanager
    async def running(limits: Limits = LIMITS, **values: Any) -> AsyncIterator[Served]:
        world = await make_world(device, ra, ec_key, **values)
        await world.bus.put(
            chain_subject(ISSUER), encode(CaChain(certificates=world.ca.chain, previous=()))
        )
        settings = replace(world.enroller.live.current, limits=limits)
        chains = ChainBook.of(world.bus, settings.chains())
        await chains.start()
        await until(lambda: not chains.missing())
        slow = SlowEnroller(world)
        gateway = Gateway(world.bus, Live(settings), chains, cast("Enroller", slow), world.clock)
        listener = socket.create_server(("127.0.0.1", 0))
        server = HttpServer(gateway.app(), [listener], overload=gateway)
        port = listener.getsockname()[1]
        server.start()
        yield Served(gateway, slow, port)
        slow.release.set()
        await server.stop()
        chains.stop()

    return running


async def test_unfinished_bodies_take_no_places(serve: Callable[..., Any]) -> None:
    async with serve(replace(LIMITS, in_flight=1)) as served:
        slow = [await served.send(post(b"half", 100)) for _ in range(5)]
        served.enroller.release.set()
        reader, writer = await served.send(post(b"whole"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        for _, each in (*slow, (reader, writer)):
            each.close()


async def test_work_ends_when_its_client_goes_and_its_place_is_free(
    serve: Callable[..., Any],
) -> None:
    async with serve() as served:
        _, writer = await served.send(post(b"message"))
        await until(lambda: served.enroller.began)
        assert served.in_flight() == 1
        writer.close()
        await until(lambda: served.enroller.cancelled == [b"message"])
        await until(lambda: served.in_flight() == 0)


async def test_without_a_place_the_answer_is_503_at_once(serve: Callable[..., Any]) -> None:
    async with serve(replace(LIMITS, in_flight_per_source=1)) as served:
        _, first = await served.send(post(b"first"))
        await until(lambda: served.enroller.began)
        reader, second = await served.send(post(b"", 100))  # before the body is sent
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in answer
        first.close()
        second.close()


async def answer_of(served: Served, data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return status line, header fields without the date, and body of an answer that ends.

    The request is there by the time that the connection is accepted.
    """
    client = socket.create_connection(("127.0.0.1", served.port))
    client.sendall(data)
    reader, writer = await asyncio.open_connection(sock=client)
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()
    status, *fields = head.lower().split(b"\r\n")
    return status, sorted(f for f in fields if not f.startswith(b"date")), body


async def test_in_overload_whole_requests_are_refused_before_they_cost_a_connection(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = (PROFILE, "PKIOperation", "503")
    parsed = []
    begin = EdgeProtocol.on_message_begin

    def on_message_begin(protocol: EdgeProtocol) -> None:
        parsed.append(protocol)
        begin(protocol)

    monkeypatch.setattr(EdgeProtocol, "on_message_begin", on_message_begin)
    async with serve(replace(LIMITS, in_flight=1)) as served:
        _, first = await served.send(post(b"first"))
        await until(lambda: served.enroller.began)
        closing = post(b"x" * 4000).replace(b"Host: x", b"Host: x\r\nConnection: close")
        before = REQUESTS.labels(*labels)._value.get()
        slow = await answer_of(served, closing)
        with_parser = len(parsed)
        quick = await answer_of(served, closing)

        assert (with_parser, len(parsed)) == (2, 2)  # `first`, and the first that was refused
        assert quick == slow
        assert quick[0] == b"http/1.1 503 service unavailable"
        assert REQUESTS.labels(*labels)._value.get() == before + 2
        first.close()


async def test_in_overload_everything_but_messages_is_served(serve: Callable[..., Any]) -> None:
    caps = f"GET /scep/{PROFILE}?operation=GetCACaps HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with serve(replace(LIMITS, in_flight=1)) as served:
        _, first = await served.send(post(b"first"))
        await until(lambda: served.enroller.began)
        for _ in range(2):
            await answer_of(served, post(b"x").replace(b"Host: x", b"Connection: close"))
            reader, writer = await served.send(caps)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        first.close()


async def test_a_place_that_is_free_again_is_given_to_the_next_request(
    serve: Callable[..., Any],
) -> None:
    async with serve(replace(LIMITS, in_flight=1)) as served:
        _, first = await served.send(post(b"first"))
        await until(lambda: served.enroller.began)
        await answer_of(served, post(b"x").replace(b"Host: x", b"Connection: close"))
        first.close()
        await until(lambda: served.in_flight() == 0)
        served.enroller.release.set()
        assert served.gateway.is_busy()
        reader, writer = await served.send(post(b"second"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_message_has_the_limit_of_its_profile_by_post_and_get(
    serve: Callable[..., Any],
) -> None:
    async with serve(message_limit=4096) as served:
        served.enroller.release.set()
        for length, status in ((4096, b"200"), (4097, b"413")):
            reader, writer = await served.send(post(b"x" * length))
            assert (await reader.readline()).split()[1] == status
            writer.close()
        for text, status in (("A" * 5460, b"200"), ("A" * 5464, b"413")):
            query = f"operation=PKIOperation&message={text}"
            request = f"GET /scep/{PROFILE}?{query} HTTP/1.1\r\nHost: x\r\n\r\n"
            reader, writer = await served.send(request.encode())
            assert (await reader.readline()).split()[1] == status
            writer.close()
