"""What streams may hold on a real nats-server: sizes, names, ages, and who sees how full."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.api import StoreCompression, StreamInfo

from services.audit.record.log_reader import read
from shared.bus.core import (
    AppendConflictError,
    Bus,
    BusRefusedError,
    BusUnavailableError,
    NotAllowedError,
)
from shared.bus.provision import provision
from shared.bus.servers import Servers
from shared.bus.topology import HEARTBEAT_SECONDS, Quota
from shared.limits import EVENT_BYTES, REPLICA_NAMES
from shared.log.envelope import Message
from shared.log.roles import SERVICES, Role
from shared.log.streams import CA_CHAINS, CERTS, CRLS, DEAD_LETTERS, DEVICES, OPS, REPLAYS, REPLICAS
from shared.log.subjects import replica_subject
from tests.support.nats import NatsServer, nats_server

MIB = 2**20
MOST = {quota: (number + 1) * MIB for number, quota in enumerate(Quota)}
CLASSES = {
    "ENROLL_0": Quota.ENROLLMENTS,
    CERTS: Quota.CERTIFICATES,
    CRLS: Quota.CRLS,
    OPS: Quota.COMMANDS,
    DEAD_LETTERS: Quota.DEAD_LETTERS,
    **dict.fromkeys((CA_CHAINS, REPLAYS, DEVICES, REPLICAS), Quota.SHARED),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    with nats_server(tmp_path) as found:
        yield found


async def provisioned(server: NatsServer, most: dict[Quota, int] | None) -> None:
    seed = server.seeds[Role.PROVISIONER]
    await provision(Servers.of(server.url), seed, ["0"], 1, (), most)


async def info(server: NatsServer, stream: str) -> StreamInfo:
    client = Client()
    await client.connect(server.url, nkeys_seed_str=server.seeds[Role.PROVISIONER])
    found = await client.jetstream().stream_info(stream)
    await client.close()
    return found


async def filled(gateway: Bus, body: bytes) -> None:
    for number in range(1, 9):
        await gateway.append(request(number), Message(body, {}))


def request(number: int) -> str:
    return f"enroll.0.demo.t{number}.csr.0.request"


async def test_every_stream_has_its_size_and_its_messages_theirs(server: NatsServer) -> None:
    await provisioned(server, MOST)
    for stream, quota in CLASSES.items():
        config = (await info(server, stream)).config
        assert config.max_bytes == MOST[quota], stream
        assert EVENT_BYTES <= (config.max_msg_size or 0) <= EVENT_BYTES + 1024, stream
        assert config.discard == "new", stream


async def test_enrollments_are_compressed_on_disk_and_read_as_before(server: NatsServer) -> None:
    """All but the block that is written to; records that are looked up again are as they are."""
    await provisioned(server, None)
    gateway = await server.connect(Role.GATEWAY)
    body, count = b"enrollment " * (EVENT_BYTES // 22), 60
    for number in range(count):
        await gateway.append(request(number), Message(body, {}))
    await gateway.close()
    server.kill()
    server.start()
    auditor = await server.connect(Role.AUDIT)
    found = [stored async for batch in read(auditor, "ENROLL_0", 1, count) for stored in batch]
    await auditor.close()
    assert [stored.payload for stored in found] == [body] * count

    blocks = [path.stat().st_size for path in server.directory.rglob("ENROLL_0/msgs/*.blk")]
    assert sum(blocks) < 0.6 * count * len(body)
    kinds = {name: (await info(server, name)).config.compression for name in CLASSES}
    assert {name for name, kind in kinds.items() if kind == StoreCompression.S2} == {"ENROLL_0"}


async def test_sizes_can_be_changed_and_lifted_later(server: NatsServer) -> None:
    await provisioned(server, MOST)
    await provisioned(server, MOST | {Quota.ENROLLMENTS: 64 * MIB, Quota.COMMANDS: 0})

    assert (await info(server, "ENROLL_0")).config.max_bytes == 64 * MIB
    assert (await info(server, OPS)).config.max_bytes == -1


async def test_a_full_stream_is_an_outage_and_what_stands_there_still_counts(
    server: NatsServer,
) -> None:
    """Waiting cures it, once an operator has made room; nothing is lost or overwritten."""
    await provisioned(server, MOST)
    gateway = await server.connect(Role.GATEWAY)
    body = b"x" * (EVENT_BYTES // 2)
    await gateway.append(request(0), Message(body, {}))
    with pytest.raises(BusUnavailableError, match="maximum bytes"):
        await filled(gateway, body)
    with pytest.raises(AppendConflictError):
        await gateway.append(request(0), Message(b"{}", {}))
    await provisioned(server, MOST | {Quota.ENROLLMENTS: 64 * MIB})

    await gateway.append(request(9), Message(body, {}))
    await gateway.close()


async def test_a_message_over_the_limit_is_refused_by_the_server_itself(
    server: NatsServer,
) -> None:
    await provisioned(server, None)
    gateway = await server.connect(Role.GATEWAY)
    answer = await gateway.request(request(0), b"x" * (EVENT_BYTES + 1024), {})
    assert b"size exceeds maximum" in answer.data

    assert await gateway.get_last("ENROLL_0", request(0)) is None
    await gateway.close()


async def test_heartbeats_leave_by_the_servers_own_clock(server: NatsServer) -> None:
    """A writer's header cannot keep one for longer."""
    await provisioned(server, None)
    gateway = await server.connect(Role.GATEWAY)
    with pytest.raises((BusRefusedError, BusUnavailableError)):
        await gateway.put(replica_subject("gateway", "g"), Message(b"{}", {}), 10**6)
    config = (await info(server, REPLICAS)).config

    assert config.max_age == HEARTBEAT_SECONDS
    assert not config.allow_msg_ttl
    await gateway.close()


async def test_planted_names_are_bounded_and_push_nobody_off(server: NatsServer) -> None:
    """Whoever holds a gateway's key: 6 000 names a second used to stay for ever."""
    await provisioned(server, None)
    gateway, thief = [await server.connect(Role.GATEWAY) for _ in range(2)]
    mine = replica_subject("gateway", "gateway-0")
    await gateway.put(mine, Message(b"first", {}))
    planted = [replica_subject("gateway", f"fake-{n}") for n in range(REPLICA_NAMES + 100)]
    results = await asyncio.gather(
        *(thief.put(subject, Message(b"{}", {})) for subject in planted), return_exceptions=True
    )
    refused = [each for each in results if isinstance(each, BusUnavailableError)]
    await gateway.put(mine, Message(b"again", {}))

    assert len(refused) == 101
    assert (await info(server, REPLICAS)).state.messages == REPLICA_NAMES
    audit = await server.connect(Role.AUDIT)
    stored = await audit.get_last(REPLICAS, mine)
    assert stored is not None
    assert stored.payload == b"again"
    for bus in (gateway, thief, audit):
        await bus.close()


async def test_the_audit_service_alone_sees_how_full_a_stream_is(server: NatsServer) -> None:
    """Whoever may see that may list the subjects, too."""
    await provisioned(server, MOST)
    buses = {role: await server.connect(role) for role in (*SERVICES, Role.READER)}
    before = await buses[Role.AUDIT].size("ENROLL_0")
    await buses[Role.GATEWAY].append(request(0), Message(b"x" * 1000, {}))
    after = await buses[Role.AUDIT].size("ENROLL_0")

    assert (before.used, before.most) == (0, MOST[Quota.ENROLLMENTS])
    assert 1000 < after.used < 1200
    for role in set(buses) - {Role.AUDIT}:
        with pytest.raises(NotAllowedError):
            await buses[role].size("ENROLL_0")
    for bus in buses.values():
        await bus.close()
