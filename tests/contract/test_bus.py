"""One suite for the bus: what services rely on holds in memory and on a real nats-server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.bus.core import AppendConflictError, Bus, Delivery
from shared.bus.topology import ask_subject, consumers, streams
from shared.ca.crls import CHUNK_BYTES
from shared.log.envelope import Message
from shared.log.roles import Role
from shared.log.streams import (
    CA_CHAINS,
    CERTS,
    CRLS,
    DEAD_LETTERS,
    DEVICES,
    OPS,
    REPLAYS,
    enroll_stream,
)
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    chain_subject,
    crl_chunk,
    device_subject,
    key_issued,
    replay_record,
    revocation_answer,
    revocation_command,
)
from tests.fakes.memory_bus import MemoryBus, MemoryConsumer, MemoryStream, matches
from tests.support.nats import nats_server

REQUEST = "enroll.0.demo.tx.csr.0.request"
STREAM = enroll_stream("0")


@dataclass
class Buses:
    """The bus as each role sees it."""

    gateway: Bus
    validator: Bus
    issuer: Bus
    audit: Bus


def memory() -> Buses:
    bus = MemoryBus()
    for spec in streams(["0"]):
        bus.streams[spec.name] = MemoryStream(spec.subjects, max_age=spec.max_age)
    for consumer in consumers(["0"]):
        key = f"{consumer.stream}/{consumer.durable}"
        bus.consumers[key] = MemoryConsumer(consumer.stream, consumer.filters, consumer.ack_all)
    return Buses(bus, bus, bus, bus)


@pytest.fixture(params=["memory", "nats-server"])
async def buses(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Buses]:
    if request.param == "memory":
        found = memory()
        yield found
        await found.gateway.close()
        return
    with nats_server(tmp_path) as server:
        await server.provision()
        roles = (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER, Role.AUDIT)
        connected = [await server.connect(role) for role in roles]
        for bus in connected:
            bus.replicated = True  # so that leaders are asked
        yield Buses(*connected)
        for bus in connected:
            await bus.close()


def message(payload: bytes = b"{}") -> Message:
    return Message(payload, {"Scepstream-Type": "Test"})


class Collector:
    """Deliveries as they come."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Delivery] = asyncio.Queue()

    def __call__(self, delivery: Delivery) -> None:
        self.queue.put_nowait(delivery)

    async def next(self, seconds: float = 15) -> Delivery:
        return await asyncio.wait_for(self.queue.get(), seconds)


async def test_an_append_is_stored_with_headers_and_sequence(buses: Buses) -> None:
    sequence = await buses.gateway.append(REQUEST, message(b"one"))
    stored = await buses.gateway.get_last(STREAM, REQUEST)

    assert stored is not None
    assert (stored.subject, stored.payload, stored.sequence) == (REQUEST, b"one", sequence)
    assert stored.headers["Scepstream-Type"] == "Test"
    assert stored.time > 0


async def test_a_second_append_on_a_subject_conflicts_and_changes_nothing(buses: Buses) -> None:
    await buses.gateway.append(REQUEST, message(b"first"))

    with pytest.raises(AppendConflictError):
        await buses.gateway.append(REQUEST, message(b"second"))

    stored = await buses.gateway.get_last(STREAM, REQUEST)
    assert stored is not None
    assert stored.payload == b"first"


async def test_of_racing_appends_exactly_one_wins(buses: Buses) -> None:
    results = await asyncio.gather(
        *(buses.gateway.append(REQUEST, message(b"%d" % i)) for i in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(r, int) for r in results) == 1
    assert sum(isinstance(r, AppendConflictError) for r in results) == 19


async def test_a_wildcard_read_gives_the_last_of_its_subjects(buses: Buses) -> None:
    for attempt in range(3):
        await buses.gateway.append(f"enroll.0.demo.tx.csr.{attempt}.request", message())
    await buses.gateway.append("enroll.0.demo.other.csr.0.request", message())

    stored = await buses.gateway.get_last(STREAM, "enroll.0.demo.tx.csr.*.request")
    assert stored is not None
    assert stored.subject == "enroll.0.demo.tx.csr.2.request"
    assert await buses.gateway.get_last(STREAM, "enroll.0.demo.none.*.*.request") is None


async def test_a_message_is_read_by_sequence(buses: Buses) -> None:
    sequence = await buses.gateway.append(REQUEST, message(b"x"))
    stored = await buses.audit.get_sequence(STREAM, sequence)
    assert stored is not None
    assert (stored.subject, stored.payload) == (REQUEST, b"x")
    assert await buses.audit.get_sequence(STREAM, sequence + 1) is None


async def test_where_there_is_nothing_the_leader_says_so_to_every_role_on_what_it_reads(
    buses: Buses,
) -> None:
    asked = [
        (buses.gateway, STREAM, "enroll.0.demo.none.*.*.request"),
        (buses.gateway, CERTS, certificate_issued("local", "99")),
        (buses.validator, STREAM, "enroll.0.demo.none.csr.0.outcome"),
        (buses.validator, CERTS, certificate_issued("local", "99")),
        (buses.validator, OPS, revocation_command("local", "99", 0)),
        (buses.validator, REPLAYS, replay_record("signed", "none", "*")),
        (buses.validator, DEVICES, device_subject("none", "*")),
        (buses.issuer, STREAM, "enroll.0.demo.none.csr.0.outcome"),
        (buses.issuer, CERTS, key_issued("none", "*", "*")),
        (buses.issuer, CRLS, crl_chunk("local", "none", 0)),
        (buses.audit, STREAM, "enroll.0.demo.none.csr.0.hold"),
        (buses.audit, CERTS, certificate_issued("local", "99")),
        (buses.audit, OPS, revocation_command("local", "99", 0)),
        (buses.audit, DEAD_LETTERS, "dead.*.ENROLL_0.9"),
        (buses.audit, REPLAYS, replay_record("signed", "none", "*")),
    ]
    for bus, stream, subject in asked:
        assert await bus.get_last_or_leader(stream, subject) is None, (stream, subject)
        assert await bus.get_last_from_leader(stream, subject) is None, (stream, subject)


async def test_the_leader_knows_what_is_there(buses: Buses) -> None:
    sequence = await buses.gateway.append(REQUEST, message(b"one"))
    (last,) = await revoked(buses, "40")
    wildcard, revoked_40 = "enroll.0.demo.tx.*.*.request", certificate_status("local", "40", 0)
    found = [
        await buses.gateway.get_last_or_leader(STREAM, wildcard),
        await buses.gateway.get_last_from_leader(STREAM, wildcard),
        await buses.validator.get_last_from_leader(STREAM, REQUEST),
        await buses.issuer.get_last_from_leader(STREAM, REQUEST),
        await buses.audit.get_sequence_or_leader(STREAM, sequence),
        await buses.validator.get_last_from_leader(CERTS, revoked_40),
        await buses.issuer.get_next_or_leader(CERTS, certificate_status("local", "*", "*"), 1),
    ]

    assert [each and each.sequence for each in found] == [sequence] * 5 + [last] * 2
    assert await buses.audit.get_sequence_or_leader(STREAM, sequence + 1) is None
    assert await buses.issuer.get_next_or_leader(CERTS, revoked_40, last + 1) is None


async def test_asking_the_leader_stores_nothing(buses: Buses) -> None:
    await buses.gateway.append(REQUEST, message())
    for bus in (buses.gateway, buses.validator, buses.issuer, buses.audit):
        await bus.get_last_from_leader(STREAM, REQUEST)
        await bus.get_last_from_leader(STREAM, "enroll.0.demo.none.*.*.request")

    assert await buses.audit.count(STREAM) == 1


async def test_what_a_role_stores_where_leaders_are_asked_keeps_nobody_from_asking(
    tmp_path: Path,
) -> None:
    """One taken over could: at most one message, which no consumer hands out."""
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway, validator = [await server.connect(r) for r in (Role.GATEWAY, Role.VALIDATOR)]
        validator.replicated = True
        await gateway.append(ask_subject(CERTS), message(b"planted"))
        with pytest.raises(AppendConflictError):
            await gateway.append(ask_subject(CERTS), message(b"planted again"))
        unknown = certificate_issued("local", "99")

        assert await validator.get_last_or_leader(CERTS, unknown) is None
        for bus in (gateway, validator):
            await bus.close()


async def revoked(buses: Buses, *serials: str) -> list[int]:
    """Revocations on record, with a certificate between any two."""
    sequences = []
    for serial in serials:
        await buses.issuer.append(certificate_issued("local", serial), message(b"issued"))
        place = certificate_status("local", serial, 0)
        sequences.append(await buses.issuer.append(place, message(serial.encode())))
    return sequences


async def test_the_next_message_is_the_first_at_or_after_a_sequence(buses: Buses) -> None:
    first, second, third = await revoked(buses, "40", "41", "42")
    wildcard = certificate_status("local", "*", "*")
    asked = [1, first, first + 1, second, second + 1, third]
    found = [await buses.issuer.get_next(CERTS, wildcard, sequence) for sequence in asked]

    assert [stored and stored.payload for stored in found] == [
        b"40", b"40", b"41", b"41", b"42", b"42",
    ]  # fmt: skip


async def test_after_the_last_message_there_is_no_next_one(buses: Buses) -> None:
    (last,) = await revoked(buses, "40")
    wildcard = certificate_status("local", "*", "*")

    assert await buses.issuer.get_next(CERTS, wildcard, last + 1) is None
    assert await buses.issuer.get_next(CERTS, certificate_status("other", "*", "*"), 1) is None


async def test_in_an_empty_stream_there_is_no_next_message(buses: Buses) -> None:
    assert await buses.issuer.get_next(CERTS, certificate_status("local", "*", "*"), 1) is None


async def test_the_next_message_comes_whole(buses: Buses) -> None:
    (sequence,) = await revoked(buses, "40")
    stored = await buses.issuer.get_next(CERTS, certificate_status("local", "*", "*"), 1)

    assert stored is not None
    assert (stored.subject, stored.sequence) == (certificate_status("local", "40", 0), sequence)
    assert stored.headers["Scepstream-Type"] == "Test"
    assert stored == await buses.validator.get_last(CERTS, certificate_status("local", "40", 0))


async def test_reading_on_and_on_gives_each_message_of_a_subject_once(buses: Buses) -> None:
    expected = await revoked(buses, *(f"{number:02x}" for number in range(12)))
    seen, position = [], 0
    wildcard = certificate_status("local", "*", "*")
    while stored := await buses.issuer.get_next(CERTS, wildcard, position + 1):
        position = stored.sequence
        seen.append(position)

    assert seen == expected


async def test_a_stream_says_how_many_messages_it_holds(buses: Buses) -> None:
    before = await buses.audit.count(REPLAYS)
    for digest in ("aa", "bb"):
        await buses.validator.append(replay_record("signed", digest, 0), message(), ttl=60)

    assert (before, await buses.audit.count(REPLAYS)) == (0, 2)


async def test_the_last_certificate_of_a_key_is_the_one_recorded_last(buses: Buses) -> None:
    """Whichever issuer's, and whatever its serial."""
    for issuer, serial in (("local", "42"), ("other", "41"), ("local", "40")):
        await buses.issuer.append(key_issued("ab", issuer, serial), message(serial.encode()))
    await buses.issuer.append(key_issued("cd", "local", "99"), message(b"another key"))
    stored = await buses.validator.get_last(CERTS, key_issued("ab", "*", "*"))

    assert stored is not None
    assert stored.payload == b"40"


async def test_a_crl_larger_than_any_message_is_read_in_pieces(buses: Buses) -> None:
    pieces = [bytes((number,)) * CHUNK_BYTES for number in range(3)]
    for index, piece in enumerate(pieces):
        await buses.issuer.append(crl_chunk("local", "ab", index), Message(piece, {}))
    found = [await buses.gateway.get_last(CRLS, crl_chunk("local", "ab", i)) for i in range(3)]

    assert [stored and stored.payload for stored in found] == pieces


async def test_request_and_decision_come_by_the_validators_one_consumer(buses: Buses) -> None:
    collector = Collector()
    await buses.validator.consume(STREAM, "validator", collector, 8)
    stages = ("request", "hold", "decision", "verdict")
    writers = (buses.gateway, buses.validator, buses.audit, buses.validator)
    for stage, bus in zip(stages, writers, strict=True):
        await bus.append(f"enroll.0.demo.tx.csr.0.{stage}", message(stage.encode()))

    found = [await collector.next(), await collector.next()]
    assert [delivery.stored.payload for delivery in found] == [b"request", b"decision"]


async def test_an_order_comes_to_the_issuer_and_its_answer_does_not(buses: Buses) -> None:
    collector = Collector()
    await buses.issuer.consume(OPS, "issuer", collector, 8)
    for attempt in range(2):
        order = revocation_command("local", "40", attempt)
        await buses.audit.append(order, message(b"%d" % attempt))
        await buses.issuer.append(revocation_answer(order), message(b"answer"))

    found = [await collector.next(), await collector.next()]
    assert [delivery.stored.payload for delivery in found] == [b"0", b"1"]


async def test_a_put_replaces_what_was_there(buses: Buses) -> None:
    await buses.issuer.put(chain_subject("local"), message(b"old"))
    await buses.issuer.put(chain_subject("local"), message(b"new"))
    stored = await buses.gateway.get_last(CA_CHAINS, chain_subject("local"))
    assert stored is not None
    assert stored.payload == b"new"


async def test_a_consumer_gets_its_stage_alone_in_order(buses: Buses) -> None:
    collector = Collector()
    await buses.validator.consume(STREAM, "validator", collector, 8)
    await buses.gateway.append(REQUEST, message(b"1"))
    await buses.validator.append("enroll.0.demo.tx.csr.0.verdict", message(b"not for it"))
    await buses.gateway.append("enroll.0.demo.ty.csr.0.request", message(b"2"))

    first, second = await collector.next(), await collector.next()
    assert [first.stored.payload, second.stored.payload] == [b"1", b"2"]
    assert first.stream == STREAM
    assert first.deliveries == 1
    assert first.stored.time > 0


async def test_more_than_one_pull_of_messages_flows_through(buses: Buses) -> None:
    """A pull asks for a limited number; the next one must be asked for in time."""
    done = asyncio.Event()
    seen: list[int] = []

    def on_delivery(delivery: Delivery) -> None:
        seen.append(delivery.stored.sequence)
        tasks.append(asyncio.create_task(delivery.ack()))
        if len(seen) == 100:
            done.set()

    tasks: list[asyncio.Task[None]] = []
    await buses.validator.consume(STREAM, "validator", on_delivery, 8)
    for i in range(100):
        await buses.gateway.append(f"enroll.0.demo.t{i}.csr.0.request", message())

    # Far below the time after which a silent pull is asked for anew: nothing may wait for that.
    await asyncio.wait_for(done.wait(), 4)
    await asyncio.gather(*tasks)
    assert seen == sorted(set(seen))


async def test_unsettled_messages_are_limited(buses: Buses) -> None:
    collector = Collector()
    await buses.validator.consume(STREAM, "validator", collector, 4)
    for i in range(6):
        await buses.gateway.append(f"enroll.0.demo.t{i}.csr.0.request", message())
    held = [await collector.next() for _ in range(4)]
    with pytest.raises(TimeoutError):
        await collector.next(0.5)
    for delivery in held:
        await delivery.ack()
    assert {(await collector.next()).stored.sequence for _ in range(2)} == {5, 6}


async def test_another_limit_holds_from_then_on(buses: Buses) -> None:
    collector = Collector()
    consumption = await buses.validator.consume(STREAM, "validator", collector, 2)
    for i in range(6):
        await buses.gateway.append(f"enroll.0.demo.t{i}.csr.0.request", message())
    held = [await collector.next() for _ in range(2)]
    with pytest.raises(TimeoutError):
        await collector.next(0.5)
    await consumption.resize(5)
    held += [await collector.next() for _ in range(3)]
    with pytest.raises(TimeoutError):
        await collector.next(0.5)
    await held[0].ack()

    await consumption.resize(6)
    assert (await collector.next()).stored.sequence == 6


async def test_a_nak_hands_the_message_out_again_and_counts(buses: Buses) -> None:
    collector = Collector()
    await buses.validator.consume(STREAM, "validator", collector, 4)
    await buses.gateway.append(REQUEST, message())
    await (await collector.next()).nak(0.1)
    again = await collector.next()
    assert again.deliveries == 2
    assert again.stored.subject == REQUEST


async def test_what_was_acknowledged_is_not_handed_to_the_next_subscriber(buses: Buses) -> None:
    collector = Collector()
    consumption = await buses.validator.consume(STREAM, "validator", collector, 4)
    await buses.gateway.append(REQUEST, message(b"1"))
    await (await collector.next()).ack()
    await consumption.stop()

    later = Collector()
    await buses.validator.consume(STREAM, "validator", later, 4)
    await buses.gateway.append("enroll.0.demo.ty.csr.0.request", message(b"2"))
    assert (await later.next()).stored.payload == b"2"


async def test_one_acknowledgement_settles_a_batch_of_an_ack_all_consumer(buses: Buses) -> None:
    collector = Collector()
    await buses.audit.consume(STREAM, "audit", collector, 4)
    for i in range(8):
        await buses.gateway.append(f"enroll.0.demo.t{i}.csr.0.request", message())
    batch = [await collector.next() for _ in range(4)]
    await batch[-1].ack(len(batch))
    assert [(await collector.next()).stored.sequence for _ in range(4)] == [5, 6, 7, 8]


@pytest.mark.parametrize("publisher", ["validator", "issuer"])
async def test_a_hint_reaches_the_gateway_that_listens(buses: Buses, publisher: str) -> None:
    heard: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue()
    await buses.gateway.on_hint(
        "gw.g1", lambda s, p, h: heard.put_nowait((s, p, h["Scepstream-Type"]))
    )
    sender: Bus = getattr(buses, publisher)
    # A core subscription is in force only once the server has it: ask until one arrives.
    for _ in range(50):
        await sender.hint("gw.g1", message(b"hint"))
        try:
            found = await asyncio.wait_for(heard.get(), 0.2)
        except TimeoutError:
            continue
        assert found == ("gw.g1", b"hint", "Test")
        return
    raise AssertionError("no hint arrived")


def test_wildcards_of_the_fake_are_those_of_nats() -> None:
    cases: list[tuple[str, str, bool]] = [
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("*.*", "a.b", True),
        ("a.b", "a.b", True),
    ]
    assert [matches(p, s) for p, s, _ in cases] == [expected for *_, expected in cases]
