"""Bytes that another role stored: whatever they are, readers hand them on and go on reading."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.record.digest import own_headers
from shared.bus.client import DESCRIPTION, STATUS, read_headers
from shared.bus.core import BusRefusedError, Delivery
from shared.bus.jetstream import JetStreamBus
from shared.bus.topology import ACK_WAIT_SECONDS
from shared.limits import EVENT_BYTES
from shared.log.envelope import Message, Stored
from shared.log.roles import Role
from shared.log.streams import DEAD_LETTERS, enroll_stream
from tests.contract.raw import RawClient
from tests.support.nats import NatsServer, nats_server

STREAM = enroll_stream("0")
HONEST = "enroll.0.demo.tx.honest.0.request"
SUBJECTS = [
    b"enroll.0.demo.\xff.csr.0.request",
    b"enroll.0.\xc3\x28.tx.csr.0.request",
    b"enroll.0.demo.a\x0bb.csr.0.request",
    b"enroll.0.demo.a\x0cb.csr.0.request",
    b"enroll.0.demo.\x00.csr.0.request",
    b"enroll.0.demo.\x1b]0;x\x07.csr.0.request",
    b"enroll.0.demo." + b"x" * 3000 + b".csr.0.request",
    "enroll.0.demo.\u202e.csr.0.request".encode(),
]
HEADERS = [
    b"NATS/1.0\r\nStatus: 503\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\n\r\n",
    b"NATS/1.0 404 Message Not Found\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Subject: y\r\nNats-Time-Stamp: z\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\xff\xfe: \xff\r\n: empty\r\n\r\n",
    b"NATS/1.0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
]


@dataclass
class Log:
    """A server, the gateway's bare connection, and two readers of the log."""

    server: NatsServer
    planter: RawClient
    gateway: JetStreamBus
    validator: JetStreamBus


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    with nats_server(tmp_path) as server:
        await server.provision()
        planter = RawClient(server, Role.GATEWAY)
        gateway, validator = [await server.connect(role) for role in (Role.GATEWAY, Role.VALIDATOR)]
        yield Log(server, planter, gateway, validator)
        planter.close()
        await gateway.close()
        await validator.close()


async def test_a_callback_that_raises_costs_its_message_and_not_the_reader(log: Log) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    def fail(_: str, payload: bytes, __: dict[str, str]) -> None:
        heard.put_nowait(payload)
        raise RuntimeError("a bug")

    await log.gateway.on_hint("gw.g1", fail)
    await log.gateway.append(HONEST, Message(b"{}", {}))  # the server has the subscription now
    for payload in (b"first", b"second"):
        await log.validator.hint("gw.g1", Message(payload, {}))
        assert await asyncio.wait_for(heard.get(), 5) == payload

    stored = await log.gateway.get_last(STREAM, HONEST)
    assert stored is not None
    assert log.gateway.connected


async def delivered(bus: JetStreamBus, until: str) -> list[str]:
    """The subjects that a consumer hands out, up to one."""
    found: asyncio.Queue[Delivery] = asyncio.Queue()
    await bus.consume(STREAM, "validator", found.put_nowait, 64)
    subjects: list[str] = []
    async with asyncio.timeout(20):
        while not subjects or subjects[-1] != until:
            delivery = await found.get()
            subjects.append(delivery.stored.subject)
            await delivery.ack()
    return subjects


async def test_any_subject_that_the_server_stores_is_handed_out(log: Log) -> None:
    for subject in SUBJECTS:
        log.planter.publish(subject)
    log.planter.settle()
    await log.gateway.append(HONEST, Message(b"{}", {}))
    subjects = await delivered(log.validator, HONEST)

    assert len(subjects) == len(SUBJECTS) + 1
    for subject in subjects:  # what terminals, databases and logs can hold
        assert subject.encode()
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", subject)


async def test_an_empty_message_delays_the_next_ones_once_and_briefly(log: Log) -> None:
    """nats-server answers a pull no further after it, and delivers the rest again in 5 seconds."""
    found: asyncio.Queue[Delivery] = asyncio.Queue()
    await log.validator.consume(STREAM, "validator", found.put_nowait, 64)

    async def next_after_an_empty_one(number: int) -> float:
        log.planter.publish(f"enroll.0.demo.tx.empty{number}.0.request".encode(), b"")
        log.planter.settle()
        honest = f"enroll.0.demo.tx.honest{number}.0.request"
        begun = asyncio.get_running_loop().time()
        await log.gateway.append(honest, Message(b"{}", {}))
        async with asyncio.timeout(20):
            while True:
                delivery = await found.get()
                await delivery.ack()
                if delivery.stored.subject == honest:
                    return asyncio.get_running_loop().time() - begun

    # Without the second pull it is twice the wait, each time.
    assert await next_after_an_empty_one(0) < ACK_WAIT_SECONDS + 3
    assert max([await next_after_an_empty_one(each) for each in range(1, 40)]) < 3


async def test_a_message_is_the_same_however_it_is_read(log: Log) -> None:
    """The record reads it from a consumer, a replay by its sequence: they must not differ."""
    planter = RawClient(log.server, Role.VALIDATOR)
    ends = [b"\xff\xfe", b"\xc3\x28", b"a\x0b", b"\x0c", b"\x1c", b"\x00", b"\x85", b"\\xff"]
    for end in ends:
        head = (
            b"NATS/1.0\r\nScepstream-Key: "
            + end
            + b"\r\nScepstream-Subject:\x0b"
            + end
            + b"\x0b\r\n\r\n"
        )
        planter.publish(b"dead.validator.x." + end, b"{}", head)
    planter.settle()
    planter.close()
    audit = await log.server.connect(Role.AUDIT)
    found: asyncio.Queue[Delivery] = asyncio.Queue()
    await audit.consume(DEAD_LETTERS, "audit", found.put_nowait, 64)
    async with asyncio.timeout(20):
        handed_out = [(await found.get()).stored for _ in ends]
    read = [
        await audit.get_sequence(DEAD_LETTERS, sequence) for sequence in range(1, len(ends) + 1)
    ]
    await audit.close()

    assert [_told(stored) for stored in read if stored] == [_told(stored) for stored in handed_out]


def _told(stored: Stored) -> tuple[int, int, str, bytes, str]:
    """What the record keeps of it."""
    place = stored.sequence, stored.time
    return (*place, stored.subject, stored.payload, own_headers(stored))


@pytest.mark.parametrize("headers", HEADERS, ids=range(len(HEADERS)))
async def test_a_stored_message_is_one_whatever_its_headers_say(log: Log, headers: bytes) -> None:
    """A status that its publisher gave it neither hides it nor passes for the server's word."""
    planted = "enroll.0.demo.tx.planted.0.request"
    log.planter.publish(planted.encode(), b"payload", headers)
    log.planter.settle()
    await log.gateway.append(HONEST, Message(b"{}", {}))
    stored = await log.validator.get_last(STREAM, planted)

    assert stored is not None
    assert (stored.subject, stored.payload, stored.sequence) == (planted, b"payload", 1)
    assert await delivered(log.validator, HONEST) == [planted, HONEST]


async def test_what_is_not_there_is_still_told_from_what_hides(log: Log) -> None:
    assert await log.validator.get_last(STREAM, HONEST) is None


async def test_an_event_that_no_waiting_makes_smaller_is_refused_for_good(log: Log) -> None:
    with pytest.raises(BusRefusedError):
        await log.gateway.append(HONEST, Message(b"x" * (EVENT_BYTES + 1), {}))
    assert await log.gateway.append(HONEST, Message(b"x" * (EVENT_BYTES - 1000), {}))


async def test_a_header_that_the_stream_forbids_is_refused_for_good(log: Log) -> None:
    with pytest.raises(BusRefusedError):
        await log.gateway.append(HONEST, Message(b"{}", {"Nats-TTL": "1s"}))


@given(st.binary(max_size=300))
def test_any_header_block_reads_as_headers(block: bytes) -> None:
    for name, value in read_headers(b"NATS/1.0" + block).items():
        assert ":" not in name or name in (STATUS, DESCRIPTION)
        assert value.encode().decode() == value


@given(
    st.lists(
        st.tuples(st.from_regex(r"[!-9;-~]{1,20}", fullmatch=True), st.text("ab ", max_size=9))
    )
)
def test_the_last_of_equal_headers_counts(pairs: list[tuple[str, str]]) -> None:
    """The server adds its own after those of a publisher."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)

    assert read_headers(f"NATS/1.0\r\n{lines}\r\n".encode()) == {n: v.strip() for n, v in pairs}


async def test_a_reader_that_ends_by_itself_ends_the_process_and_a_cancelled_one_does_not(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hears nothing any more must not look alive."""
    ended: list[str] = []
    client = log.gateway.client
    monkeypatch.setattr(client, "_on_reader_ended", lambda: ended.append("ended"))
    reading = client._reading_task
    reading.cancel()
    await asyncio.wait([reading])
    assert ended == []

    async def broken(_: bytes) -> None:
        raise KeyError("a bug in the parser")

    monkeypatch.setattr(client._ps, "parse", broken)
    reading = asyncio.create_task(client._read_loop())
    log.planter.publish(b"enroll.0.demo.tx.any.0.request")
    await log.gateway.client.publish("$JS.API.DIRECT.GET.ENROLL_0.x", b"", log.gateway.inbox + ".x")
    await asyncio.wait([reading], timeout=10)
    assert ended == ["ended"]
