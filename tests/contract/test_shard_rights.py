"""Rights to a new shard, given to a running nats-server."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.bus.core import Delivery, NobodyListensError, NotAllowedError
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision, server_config
from shared.bus.servers import Servers
from shared.log.envelope import Message
from shared.log.roles import Role
from tests.support.nats import NatsServer, nats_server
from tests.support.system import wait_until

EMPTY = Message(b"{}", {})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    with nats_server(tmp_path) as found:
        await found.provision()
        yield found


@pytest.fixture
async def gateway(server: NatsServer) -> AsyncIterator[JetStreamBus]:
    bus = await server.connect(Role.GATEWAY)
    yield bus
    await bus.close()


@pytest.fixture
async def validator(server: NatsServer) -> AsyncIterator[JetStreamBus]:
    bus = await server.connect(Role.VALIDATOR)
    yield bus
    await bus.close()


def grant(server: NatsServer, *shards: str) -> None:
    """Write the rights to these shards, and have the server reload them."""
    listen, store = f"127.0.0.1:{server.port}", server.directory / "jetstream"
    text = server_config(server.users(), shards, store, listen, "100ms")
    (server.directory / "nats-server.conf").write_text(text)
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    log = server.directory / "nats.log"
    wait_until(lambda: b"Reloaded server configuration" in log.read_bytes(), 20, "reload")


def request(shard: str, number: int) -> str:
    return f"enroll.{shard}.demo.t{number}.c.0.request"


async def test_a_shard_is_refused_then_missing_then_there(
    server: NatsServer, gateway: JetStreamBus
) -> None:
    with pytest.raises(NotAllowedError):
        await gateway.get_last("ENROLL_1", request("1", 0))
    grant(server, "0", "1")
    with pytest.raises(NobodyListensError) as missing:
        await gateway.get_last("ENROLL_1", request("1", 0))
    assert not isinstance(missing.value, NotAllowedError)

    await provision(Servers.of(server.url), server.seeds[Role.PROVISIONER], ["0", "1"], 1)
    assert await gateway.get_last("ENROLL_1", request("1", 0)) is None
    assert await gateway.append(request("1", 0), EMPTY) == 1


async def test_what_nobody_takes_for_a_moment_is_asked_again(
    server: NatsServer, gateway: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While rights are read anew an account has no imports: nothing was stored then."""
    grant(server, "0", "1")
    publish, subjects = gateway._publish, iter([request("1", 0)])  # of which there is no stream

    async def elsewhere(subject: str, *rest: Any) -> None:
        await publish(next(subjects, subject), *rest)

    monkeypatch.setattr(gateway, "_publish", elsewhere)
    assert await gateway.append(request("0", 0), EMPTY) == 1


async def test_what_is_under_way_goes_on_while_rights_are_reloaded(
    server: NatsServer, gateway: JetStreamBus, validator: JetStreamBus
) -> None:
    seen: list[tuple[str, int]] = []
    settling: set[asyncio.Task[None]] = set()

    def on_delivery(delivery: Delivery) -> None:
        seen.append((delivery.stored.subject, delivery.deliveries))
        settling.add(asyncio.create_task(delivery.ack()))

    await validator.consume("ENROLL_0", "validator", on_delivery, 8)
    reloading = asyncio.create_task(asyncio.to_thread(grant, server, "0", "1"))
    written = 0
    while not reloading.done() or written < 200:
        await gateway.append(request("0", written), EMPTY)
        written += 1
    await reloading
    async with asyncio.timeout(20):
        while len(seen) < written:
            await asyncio.sleep(0.01)

    assert seen == [(request("0", number), 1) for number in range(written)]
    assert gateway.client.stats["reconnects"] == validator.client.stats["reconnects"] == 0
    await asyncio.gather(*settling)
