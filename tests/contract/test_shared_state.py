"""What validators share: messages that end, compare-and-set, and nobody else's hand on either."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.js.errors import APIError

from services.validator.challenges.records import Records
from services.validator.challenges.windows import Counted, Full
from shared.bus.core import AppendConflictError, Bus, BusRefusedError, NobodyListensError
from shared.bus.jetstream import JetStreamBus
from shared.bus.series import Series, SeriesTooLongError, Write, signing
from shared.bus.topology import streams
from shared.limits import SERIES_LENGTH
from shared.log.envelope import Message
from shared.log.events.state import CountedEnrollment, DeviceCounted
from shared.log.roles import SERVICES, Role
from shared.log.streams import DEVICES, OPS, REPLAYS, REPLICAS, stream_of
from shared.log.subjects import (
    anchor_reload_command,
    device_subject,
    one_time_cancelled,
    one_time_created,
    reload_answer,
    replay_record,
    replica_subject,
)
from tests.fakes.bus_through import BusThrough, racing
from tests.fakes.memory_bus import MemoryBus, MemoryStream
from tests.support.enrollers import asked, holder
from tests.support.nats import NatsServer, nats_server
from tests.support.world import (
    NOW,
    REQUEST_SHA256,
    TRUSTED_ISSUERS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
)

TOKEN = replay_record("signed", "t1", 0)
DEVICE = device_subject("d1", 0)
ORDER = anchor_reload_command("demo", "o1")
VALIDATORS = 4
# Heartbeats end by the stream's own limit; a writer cannot say when.
TTL = {REPLAYS: 3600, DEVICES: 3600, REPLICAS: 0}
EMPTY = Message(b"{}", {})


@dataclass
class Log:
    """The log as four validators reach it."""

    validators: Sequence[Bus]

    @property
    def one(self) -> Bus:
        return self.validators[0]


def fast() -> int:
    """Unix nanoseconds of a clock that hurries: what ends in memory need not be waited for."""
    return time.time_ns() + 50 * time.monotonic_ns()


@pytest.fixture(params=["memory", "memory with overlapping calls", "nats-server"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    if request.param == "nats-server":
        with nats_server(tmp_path) as server:
            await server.provision()
            connected = [await server.connect(Role.VALIDATOR) for _ in range(VALIDATORS)]
            yield Log(connected)
            for each in connected:
                await each.close()
        return
    bus = MemoryBus(clock=fast)
    for spec in streams(["0"]):
        bus.streams[spec.name] = MemoryStream(spec.subjects, max_age=spec.max_age)
    if request.param == "memory":
        yield Log([bus] * VALIDATORS)
    else:
        yield Log([BusThrough(bus, racing(seed)) for seed in range(VALIDATORS)])
    await bus.close()


def message(payload: bytes = b"{}") -> Message:
    return Message(payload, {"Scepstream-Type": "Test"})


async def payload(bus: Bus, stream: str, subject: str) -> bytes | None:
    stored = await bus.get_last(stream, subject)
    return stored and stored.payload


async def gone(bus: Bus, stream: str, subject: str) -> None:
    """Look until a message has left."""
    async with asyncio.timeout(20):
        while await bus.get_last(stream, subject) is not None:
            await asyncio.sleep(0.02)


# Messages that end


async def test_a_message_that_ends_conflicts_while_it_lives_and_can_be_made_again_after(
    log: Log,
) -> None:
    first = await log.one.append(TOKEN, message(b"first"), 1)
    for other in log.validators:
        with pytest.raises(AppendConflictError):
            await other.append(TOKEN, message(b"second"), 3600)
    assert await payload(log.validators[1], REPLAYS, TOKEN) == b"first"

    await gone(log.one, REPLAYS, TOKEN)
    again = await log.validators[1].append(TOKEN, message(b"again"), 3600)
    assert again > first
    with pytest.raises(AppendConflictError):
        await log.validators[2].append(TOKEN, message(b"third"), 3600)
    assert await payload(log.one, REPLAYS, TOKEN) == b"again"


async def test_a_message_ends_alone(log: Log) -> None:
    await log.one.append(TOKEN, message(b"short"), 1)
    await log.one.append(replay_record("signed", "t2", 0), message(b"long"), 3600)
    await log.one.append(replay_record("signed", "t3", 0), message(b"for ever"))
    await gone(log.one, REPLAYS, TOKEN)

    assert await payload(log.one, REPLAYS, replay_record("signed", "t2", 0)) == b"long"
    assert await payload(log.one, REPLAYS, replay_record("signed", "t3", 0)) == b"for ever"


async def test_a_message_does_not_end_before_its_time(log: Log) -> None:
    """By the log's own times: what is appended once it has gone is that much younger."""
    await log.one.append(TOKEN, message(), 1)
    first = await log.one.get_last(REPLAYS, TOKEN)
    await gone(log.one, REPLAYS, TOKEN)
    await log.one.append(TOKEN, message(), 3600)
    second = await log.one.get_last(REPLAYS, TOKEN)

    assert first is not None
    assert second is not None
    assert second.time - first.time >= 1_000_000_000


async def test_of_racing_appends_that_end_one_wins(log: Log) -> None:
    results = await asyncio.gather(
        *(
            log.validators[number % VALIDATORS].append(TOKEN, message(b"%d" % number), 3600)
            for number in range(40)
        ),
        return_exceptions=True,
    )

    (winner,) = [number for number, found in enumerate(results) if isinstance(found, int)]
    assert sum(isinstance(found, AppendConflictError) for found in results) == 39
    for each in log.validators:
        assert await payload(each, REPLAYS, TOKEN) == b"%d" % winner


# Series


def window(bus: Bus) -> Series[DeviceCounted]:
    place = device_subject("d1", "*")
    return Series(bus, DEVICES, place, DeviceCounted, TRUSTED_VALIDATORS, "device")


def entry(number: int) -> Write:
    enrollment = asked(holder(number), "x").enrollment.prefix()
    event = DeviceCounted(
        request_sha256=REQUEST_SHA256,
        entries=(CountedEnrollment(enrollment=enrollment, at=number),),
    )
    return signing(partial(device_subject, "d1"), event, VALIDATOR, 3600)


async def test_the_newest_of_a_series_is_what_was_appended_last(log: Log) -> None:
    assert await window(log.one).newest() is None
    for number in range(3):
        newest = await window(log.one).newest()
        assert await window(log.validators[number]).append(newest, entry(number))
    newest = await window(log.validators[3]).newest()

    assert newest is not None
    assert (newest.number, newest.event.entries[0].at) == (2, 2)


async def test_of_racing_appends_to_a_series_one_wins(log: Log) -> None:
    found = await asyncio.gather(
        *(window(log.validators[n % VALIDATORS]).append(None, entry(n)) for n in range(20))
    )

    assert len([each for each in found if each is not None]) == 1
    assert await payload(log.one, DEVICES, device_subject("d1", 1)) is None


async def test_no_update_is_lost(log: Log) -> None:
    async def add(bus: Bus) -> None:
        while True:
            newest = await window(bus).newest()
            at = newest.event.entries[0].at + 1 if newest else 1
            if await window(bus).append(newest, entry(at)) is not None:
                return

    buses = itertools.islice(itertools.cycle(log.validators), 32)
    await asyncio.gather(*map(add, buses))
    newest = await window(log.one).newest()

    assert newest is not None
    assert (newest.number, newest.event.entries[0].at) == (31, 32)


@pytest.mark.parametrize("planted", [1, 5, 40])
async def test_what_does_not_authenticate_neither_hides_nor_blocks(log: Log, planted: int) -> None:
    """Whoever holds the bus key of a role can occupy its subjects, before and after."""
    for number in range(planted):
        await log.one.append(device_subject("d1", number), message(b"forged"), 3600)
    assert await window(log.one).newest() is None
    assert await window(log.one).append(None, entry(1)) is not None
    await log.one.append(device_subject("d1", 10**12), message(b"forged"), 3600)
    newest = await window(log.validators[1]).newest()

    assert newest is not None
    assert newest.event.entries[0].at == 1
    assert newest == await window(log.validators[2]).first()


async def test_a_long_series_is_read_from_its_end_past_what_is_forged(log: Log) -> None:
    """Else a thief who plants one event brings back what stood there long ago."""
    newest = None
    for number in range(SERIES_LENGTH + 40):
        assert await window(log.one).append(newest, entry(number)) is not None
        newest = await window(log.one).newest()
    await log.one.append(device_subject("d1", 10**12), message(b"forged"), 3600)

    assert newest is not None
    assert await window(log.validators[1]).newest() == newest
    assert len([each async for each in window(log.one).all()]) == SERIES_LENGTH + 40
    last = [each async for each in window(log.one).all(after=newest)]
    assert last == []


async def test_a_series_of_which_too_much_is_forged_decides_nothing(log: Log) -> None:
    """A signed event that forged ones hide may say the opposite of the one before it."""
    assert await window(log.one).append(None, entry(1)) is not None
    for number in range(SERIES_LENGTH - 1):
        await log.one.append(device_subject("d1", 10**12 + number), message(b"forged"), 3600)
    newest = await window(log.validators[1]).newest()
    assert newest is not None
    for number in range(2):
        await log.one.append(device_subject("d1", 10**13 + number), message(b"forged"), 3600)

    for read in (window(log.one).newest, window(log.one).all(after=newest).__anext__):
        with pytest.raises(SeriesTooLongError, match="forged"):
            await read()


async def test_a_series_goes_on_where_its_events_have_left_the_log(log: Log) -> None:
    await log.one.append(device_subject("d1", 0), message(b"forged"), 1)
    assert await window(log.one).append(None, entry(1)) is not None
    await gone(log.one, DEVICES, device_subject("d1", 0))
    newest = await window(log.one).newest()
    assert await window(log.one).append(newest, entry(2)) is not None
    newest = await window(log.one).newest()

    assert newest is not None
    assert (newest.number, newest.event.entries[0].at) == (2, 2)


async def test_a_number_that_an_older_event_still_holds_is_passed_over(log: Log) -> None:
    """Where the first event has left the log, its number is taken again by the newest."""
    await log.one.append(device_subject("d1", 0), message(b"forged"), 1)
    assert await window(log.one).append(None, entry(1)) is not None  # as number 1
    await gone(log.one, DEVICES, device_subject("d1", 0))
    assert await window(log.one).append(None, entry(2)) is not None
    newest = await window(log.one).newest()
    assert newest is not None
    assert newest.number == 0
    async with asyncio.timeout(20):
        assert await window(log.validators[1]).append(newest, entry(3)) is not None
    newest = await window(log.one).newest()

    assert newest is not None
    assert (newest.number, newest.event.entries[0].at) == (2, 3)


# Records on it


def records(log: Log) -> list[Records]:
    """What each of the four validators remembers by."""
    return [Records(bus, VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS) for bus in log.validators]


async def test_racing_validators_agree_on_one_holder(log: Log) -> None:
    found = await asyncio.gather(
        *(
            each.claim(asked(holder(number), "x"), "signed", "t1", NOW + 3600)
            for number, each in enumerate(records(log) * 10)
        )
    )

    assert len({each.record.enrollment for each in found}) == 1
    assert len({(each.recorded_at, each.first_used_at) for each in found}) == 1


async def test_racing_validators_give_each_place_away_once(log: Log) -> None:
    """Ten enrollments of one device, each on two validators: three have places, on both."""
    questions = [asked(holder(number), "x") for number in range(10)]
    pairs = zip(itertools.cycle(records(log)), questions * 2, strict=False)
    found = await asyncio.gather(*(each.take_place(which, "d1", 3) for each, which in pairs))

    counted = [isinstance(each, Counted) for each in found]
    assert sum(counted) == 6
    assert counted[:10] == counted[10:]
    assert all(len(each.entries) == 3 for each in found if isinstance(each, Full))


# Nobody else's hand


@dataclass
class Bench:
    """A provisioned server and a connection for every role."""

    server: NatsServer
    buses: dict[Role, JetStreamBus]

    @property
    def validator(self) -> JetStreamBus:
        return self.buses[Role.VALIDATOR]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    with nats_server(tmp_path) as server:
        await server.provision()
        found = Bench(server, {role: await server.connect(role) for role in SERVICES})
        yield found
        for bus in found.buses.values():
            await bus.close()


@pytest.fixture
async def owner(bench: Bench) -> AsyncIterator[Client]:
    """The provisioner, whose account the streams are in."""
    client = Client()
    await client.connect(bench.server.url, nkeys_seed_str=bench.server.seeds[Role.PROVISIONER])
    yield client
    await client.close()


async def allowed(bus: JetStreamBus, subject: str, body: bytes = b"") -> bool:
    try:
        await bus.request(subject, body)
    except NobodyListensError:
        return False
    return True


Attack = dict[str, str]
OVERWRITES: dict[str, Attack] = {
    "plainly": {},
    "with an end": {"Nats-TTL": "1s"},
    "rolling up its subject": {"Nats-Rollup": "sub"},
    "rolling up everything": {"Nats-Rollup": "all"},
    "as a bucket is purged": {"KV-Operation": "PURGE", "Nats-Rollup": "sub"},
    "as a key is deleted": {"KV-Operation": "DEL"},
    "over what is there": {"Nats-Expected-Last-Subject-Sequence": "1"},
    "over the last message": {"Nats-Expected-Last-Sequence": "1"},
    "as the same message": {"Nats-Msg-Id": "1"},
}


@pytest.mark.parametrize("headers", OVERWRITES.values(), ids=OVERWRITES)
async def test_a_replay_record_cannot_be_overwritten(
    bench: Bench, owner: Client, headers: Attack
) -> None:
    """Not by a validator, and not by the owner of the stream."""
    await bench.validator.append(TOKEN, message(b"kept"), 3600)
    answers = [
        (await bench.validator.request(TOKEN, b"evil", dict(headers))).data,
        (await owner.request(TOKEN, b"evil", 5, headers=headers or None)).data,
    ]

    assert all("error" in json.loads(answer) for answer in answers)
    stored = await bench.validator.get_last(REPLAYS, TOKEN)
    assert stored is not None
    assert (stored.payload, stored.sequence) == (b"kept", 1)
    assert stored.headers["Nats-TTL"] == "3600s"


@pytest.mark.parametrize("rollup", ["sub", "all"])
@pytest.mark.parametrize(
    ("stream", "kept", "place"),
    [
        (REPLAYS, TOKEN, replay_record("signed", "t2", 0)),
        (DEVICES, DEVICE, device_subject("d2", 0)),
        (REPLICAS, replica_subject("validator", "v0"), replica_subject("validator", "v1")),
    ],
)
async def test_a_rollup_on_a_subject_of_ones_own_wipes_nothing(
    bench: Bench, owner: Client, stream: str, kept: str, place: str, rollup: str
) -> None:
    await bench.validator.put(kept, message(b"kept"), TTL[stream])
    headers = {"Nats-Rollup": rollup}
    for answer in (
        await bench.validator.request(place, b"evil", dict(headers)),
        await owner.request(place, b"evil", 5, headers=headers),
    ):
        assert "error" in json.loads(answer.data)

    info = await owner.jetstream().stream_info(stream, subjects_filter=">")
    assert info.state.subjects == {kept: 1}


@pytest.mark.parametrize("stream", [REPLAYS, DEVICES, REPLICAS])
@pytest.mark.parametrize(
    "call", ["STREAM.PURGE", "STREAM.MSG.DELETE", "STREAM.DELETE", "STREAM.UPDATE", "STREAM.INFO"]
)
async def test_no_service_reaches_the_streams_themselves(
    bench: Bench, stream: str, call: str
) -> None:
    for bus in bench.buses.values():
        try:
            answer = await bus.request(f"$JS.API.{call}.{stream}", b'{"seq": 1}')
        except NobodyListensError:
            continue
        # The server itself may answer that this account has no JetStream of its own.
        assert json.loads(answer.data)["error"]["err_code"] == 10039


@pytest.mark.parametrize("stream", [REPLAYS, DEVICES, REPLICAS])
async def test_not_even_the_owner_deletes_or_purges_or_lifts_the_ban(
    bench: Bench, owner: Client, stream: str
) -> None:
    places = {REPLAYS: TOKEN, DEVICES: DEVICE, REPLICAS: replica_subject("validator", "v0")}
    await bench.validator.put(places[stream], message(b"kept"), TTL[stream])
    context = owner.jetstream()
    config = (await context.stream_info(stream)).config

    async def lifted() -> None:
        await context.update_stream(changed(config, deny_delete=False, deny_purge=False))

    attacks: list[Callable[[], Awaitable[object]]] = [
        lambda: context.purge_stream(stream),
        lambda: context.delete_msg(stream, 1),
        lifted,
    ]
    for attack in attacks:
        with pytest.raises(APIError):
            await attack()

    info = await context.stream_info(stream, subjects_filter=">")
    assert info.state.subjects == {places[stream]: 1}


def changed(config: StreamConfig, **changes: bool) -> StreamConfig:
    return StreamConfig(**{**vars(config), **changes})


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        (Role.GATEWAY, "enroll.0.demo.tx.csr.0.request"),
        (Role.VALIDATOR, "enroll.0.demo.tx.csr.0.verdict"),
        (Role.ISSUER, "cert.local.40.issued"),
        (Role.ISSUER, "cert.local.40.status.0"),
        (Role.AUDIT, ORDER),
        (Role.AUDIT, one_time_created("demo", "x")),
    ],
)
async def test_an_event_of_the_log_cannot_be_given_an_end(
    bench: Bench, role: Role, subject: str
) -> None:
    """Only what validators share ends by itself: history does not."""
    with pytest.raises(BusRefusedError):
        await bench.buses[role].append(subject, EMPTY, 1)

    stream = stream_of(subject)
    assert stream is not None
    assert await bench.buses[role].get_last(stream, subject) is None
    await bench.buses[role].append(subject, EMPTY)


async def test_records_outlive_a_kill_of_the_server_and_what_ended_meanwhile_is_gone(
    tmp_path: Path,
) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        validator = await server.connect(Role.VALIDATOR)
        await validator.append(TOKEN, message(b"kept"), 3600)
        await validator.append(replay_record("signed", "t2", 0), message(b"ends"), 1)
        await validator.append(DEVICE, message(b"window"), 3600)
        await validator.close()
        server.kill()
        server.start()
        validator = await server.connect(Role.VALIDATOR)
        await gone(validator, REPLAYS, replay_record("signed", "t2", 0))

        with pytest.raises(AppendConflictError):
            await validator.append(TOKEN, message(b"second"), 3600)
        assert await payload(validator, REPLAYS, TOKEN) == b"kept"
        with pytest.raises(AppendConflictError):
            await validator.append(DEVICE, message(), 3600)
        await validator.close()


# Who may what

ANSWER = reload_answer(ORDER, "validator-0")
WRITERS: dict[str, set[Role]] = {
    TOKEN: {Role.VALIDATOR},
    replay_record("one_time", "x", 0): {Role.VALIDATOR},
    DEVICE: {Role.VALIDATOR},
    replica_subject("validator", "validator-0"): {Role.VALIDATOR},
    replica_subject("gateway", "gateway-0"): {Role.GATEWAY},
    replica_subject("issuer", "issuer-0"): {Role.ISSUER},
    replica_subject("audit", "audit-0"): {Role.AUDIT},
    ORDER: {Role.AUDIT},
    ANSWER: {Role.VALIDATOR},
    one_time_created("demo", "x"): {Role.AUDIT},
    one_time_cancelled("demo", "x", 0): {Role.AUDIT},
    # What looks alike, and nobody writes.
    "replay.signed": set(),
    "replay.signed.x": set(),
    "replay.signed.x.0.y": set(),
    "$KV.DEVICES.a": set(),
    "$KV.DEVICES.a.0.b": set(),
    "$KV.REPLICAS.validator.a.b": set(),
    "$KV.REPLICAS.gateway.a.b": set(),
    "ops.ra.demo.o1.gateway-0.ordered": set(),
    "ops.reload.demo.o1.validator-0.ordered": set(),
    "ops.reload.demo.o1.all.created": set(),
    "ops.challenge.demo.x.1.created": set(),
    "ops.challenge.demo.x.0.used": set(),
    "ops.challenge.demo.x.cancelled": set(),
}
READERS: dict[tuple[str, str], set[Role]] = {
    (REPLAYS, TOKEN): {Role.VALIDATOR, Role.AUDIT},
    (DEVICES, DEVICE): {Role.VALIDATOR},
    (REPLICAS, replica_subject("validator", "validator-0")): {Role.AUDIT, Role.VALIDATOR},
    (REPLICAS, replica_subject("gateway", "gateway-0")): {Role.AUDIT, Role.GATEWAY},
    (REPLICAS, replica_subject("issuer", "issuer-0")): {Role.AUDIT, Role.ISSUER},
    (OPS, ORDER): set(SERVICES) - {Role.GATEWAY},
    (OPS, ANSWER): set(SERVICES) - {Role.GATEWAY},
    (OPS, one_time_created("demo", "x")): set(SERVICES) - {Role.GATEWAY},
}
# Reading on and on is listing everything: orders for who obeys them, replicas for who asks them.
READERS_ON: dict[str, set[Role]] = {
    REPLAYS: {Role.AUDIT, Role.VALIDATOR},  # series; they hold digests, no challenge
    DEVICES: {Role.VALIDATOR},
    REPLICAS: {Role.AUDIT},
    OPS: {Role.AUDIT, Role.VALIDATOR},
}


async def test_each_subject_of_the_shared_state_has_its_writers(bench: Bench) -> None:
    found = {
        subject: {role for role, bus in bench.buses.items() if await allowed(bus, subject, b"{}")}
        for subject in WRITERS
    }

    assert found == WRITERS


async def test_each_stream_of_the_shared_state_has_its_readers(bench: Bench) -> None:
    by_subject = {
        (stream, subject): {
            role
            for role, bus in bench.buses.items()
            if await allowed(bus, f"$JS.API.DIRECT.GET.{stream}.{subject}")
        }
        for stream, subject in READERS
    }
    bodies = ({"seq": 1}, {"seq": 1, "next_by_subj": ">"}, {"multi_last": [">"]})
    on_and_on = {
        stream: {
            role
            for role, bus in bench.buses.items()
            for body in bodies
            if await allowed(bus, f"$JS.API.DIRECT.GET.{stream}", json.dumps(body).encode())
        }
        for stream in READERS_ON
    }

    assert by_subject == READERS
    assert on_and_on == READERS_ON


async def test_no_answer_of_the_server_can_be_led_into_the_shared_state(
    bench: Bench, owner: Client
) -> None:
    """A reply subject is not checked: the PubAck must not become a record, or an order."""
    gateway, validator = bench.buses[Role.GATEWAY], bench.validator
    targets = (
        TOKEN,
        DEVICE,
        ORDER,
        one_time_created("demo", "x"),
        one_time_cancelled("demo", "x", 0),
    )
    for number, target in enumerate(targets):
        request = f"enroll.0.demo.t{number}.csr.0.request"
        await gateway.client.publish(request, b"{}", reply=target)
        await gateway.client.publish(f"$JS.API.DIRECT.GET.ENROLL_0.{request}", b"", reply=target)
        if target.startswith("ops."):
            await validator.client.publish(f"replay.x.{number}", b"{}", reply=target)
    await gateway.client.flush()
    await validator.client.flush()
    await gateway.append("enroll.0.demo.last.csr.0.request", EMPTY)
    await validator.append(replay_record("x", "last", 0), EMPTY, 3600)

    for stream in (REPLAYS, DEVICES, OPS):
        info = await owner.jetstream().stream_info(stream, subjects_filter=">")
        assert not set(targets) & set(info.state.subjects or {})


async def test_only_the_audit_service_can_hint_at_an_order(bench: Bench) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await bench.validator.on_hint("command.*", lambda _s, body, _h: heard.put_nowait(body))
    await bench.validator.client.flush()
    for role in (Role.GATEWAY, Role.ISSUER):
        await bench.buses[role].hint("command.reload", Message(role.value.encode(), {}))
        await bench.buses[role].client.flush()
    await bench.buses[Role.AUDIT].hint("command.reload", Message(b"audit", {}))

    assert await asyncio.wait_for(heard.get(), 5) == b"audit"
