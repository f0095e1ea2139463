"""What a process says of its bus when it cannot work with it, seen on a real nats-server."""

import asyncio
import contextlib
import resource
from collections.abc import Callable
from pathlib import Path

from nats.aio.client import Client

from shared.bus.core import BusUnavailableError, Delivery
from shared.bus.jetstream import JetStreamBus
from shared.log.envelope import Message
from shared.log.roles import Role
from shared.log.subjects import replica_subject
from tests.support.nats import NatsServer, nats_server

EVENT = Message(b"x" * 4096, {})


def request(number: int) -> str:
    return f"enroll.0.demo.t{number}.csr.0.request"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)


async def delete_consumer(server: NatsServer, stream: str, durable: str) -> None:
    client = Client()
    await client.connect(server.url, nkeys_seed_str=server.seeds[Role.PROVISIONER])
    await client.jetstream().delete_consumer(stream, durable)
    await client.close()


async def test_a_deleted_consumer_is_named_and_one_made_again_hands_out_everything(
    tmp_path: Path,
) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway, validator = [await server.connect(r) for r in (Role.GATEWAY, Role.VALIDATOR)]
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        await validator.consume("ENROLL_0", "validator", arrived.put_nowait, 8)
        await gateway.append(request(1), EVENT)
        await (await asyncio.wait_for(arrived.get(), 10)).ack()
        assert validator.problems() == []

        await delete_consumer(server, "ENROLL_0", "validator")
        await until(lambda: validator.problems() == ["consumer validator of ENROLL_0 is missing"])
        await gateway.append(request(2), EVENT)
        await server.provision()
        found = [await asyncio.wait_for(arrived.get(), 20) for _ in range(2)]

        assert [delivery.stored.subject for delivery in found] == [request(1), request(2)]
        assert validator.problems() == []
        assert gateway.problems() == []
        for bus in (gateway, validator):
            await bus.close()


async def test_a_consumer_that_was_never_made_is_named(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        await delete_consumer(server, "ENROLL_0", "issuer")
        issuer = await server.connect(Role.ISSUER)
        await issuer.consume("ENROLL_0", "issuer", lambda _: None, 8)

        await until(lambda: issuer.problems() == ["consumer issuer of ENROLL_0 is missing"])
        await issuer.close()


async def fails(bus: JetStreamBus, number: int) -> bool:
    with contextlib.suppress(BusUnavailableError):
        await bus.append(request(number), EVENT)
        return False
    return True


async def test_a_stream_that_met_a_full_disk_is_named_until_the_server_was_restarted(
    tmp_path: Path,
) -> None:
    """A limit on the size of its files is to nats-server what a full disk is."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway = await server.connect(Role.GATEWAY, timeout=1.0)
        await gateway.append(request(1), EVENT)
        assert server.process is not None
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
        assert await fails(gateway, 2)
        assert gateway.problems() == ["ENROLL_0 rejects appends"]

        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        await gateway.put(replica_subject(Role.GATEWAY, "gateway-0"), EVENT)
        assert await fails(gateway, 3), "nats-server keeps the error: this is what restarts it"
        assert gateway.problems() == ["ENROLL_0 rejects appends"]

        server.kill()
        server.start()
        async with asyncio.timeout(20):
            while await fails(gateway, 4):
                await asyncio.sleep(0.1)
        assert gateway.problems() == []
        await gateway.close()
