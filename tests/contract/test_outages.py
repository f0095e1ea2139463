"""The real bus through kills of nats-server: errors that say so, and nothing that hangs."""

import asyncio
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cli.up.ports import nats_port
from services.audit.record.log_reader import read
from shared.bus.core import AppendConflictError, BusUnavailableError, Delivery
from shared.bus.jetstream import JetStreamBus
from shared.bus.servers import Servers
from shared.log.envelope import Message
from shared.log.roles import Role
from tests.support.nats import nats_server

REQUEST = "enroll.0.demo.tx.csr.0.request"


async def eventually_append(bus: object, subject: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await bus.append(subject, Message(b"{}", {}))  # type: ignore[attr-defined]
            except BusUnavailableError:
                await asyncio.sleep(0.05)
            except AppendConflictError:
                return
            else:
                return


async def test_calls_fail_while_the_server_is_away_and_work_after_it_is_back(
    tmp_path: Path,
) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway = await server.connect(Role.GATEWAY, timeout=1.0)
        await gateway.append(REQUEST, Message(b"kept", {}))
        server.kill()
        with pytest.raises(BusUnavailableError):
            await gateway.append("enroll.0.demo.ty.csr.0.request", Message(b"{}", {}))
        server.start()
        await eventually_append(gateway, "enroll.0.demo.tz.csr.0.request")

        with pytest.raises(AppendConflictError):
            await gateway.append(REQUEST, Message(b"second", {}))
        stored = await gateway.get_last("ENROLL_0", REQUEST)
        assert stored is not None
        assert stored.payload == b"kept"
        await gateway.close()


async def test_answers_that_came_while_the_process_stood_still_are_heard(tmp_path: Path) -> None:
    """A machine that was paused has its answers in the socket, and more than one read's worth."""
    count = 300
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway = await server.connect(Role.GATEWAY, timeout=1.0)
        await gateway.append(REQUEST, Message(b"x" * 4096, {}))
        reads = [asyncio.ensure_future(gateway.get_last("ENROLL_0", REQUEST)) for _ in range(count)]
        for _ in range(3):
            await asyncio.sleep(0)  # the requests are sent
        time.sleep(2.5)
        assert len([1 for found in await asyncio.gather(*reads) if found]) == count
        await gateway.close()


async def test_a_long_read_outlasts_a_restart_of_the_server(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway = await server.connect(Role.GATEWAY)
        for number in range(300):
            await gateway.append(f"enroll.0.demo.t{number}.csr.0.request", Message(b"{}", {}))
        found: list[int] = []
        auditor = await server.connect(Role.AUDIT, timeout=1.0)
        async for batch in read(auditor, "ENROLL_0", 1, 300):
            if not found:
                server.kill()
                asyncio.get_running_loop().call_later(2.0, server.start)
            found += [stored.sequence for stored in batch]
        assert found == list(range(1, 301))
        await auditor.close()
        await gateway.close()


async def test_a_start_waits_for_a_server_and_says_so_now_and_then(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        server.kill()
        with capture_logs() as lines:
            starting = asyncio.create_task(server.connect(Role.GATEWAY))
            started = time.monotonic()
            async with asyncio.timeout(20):
                while len(lines) < 3:
                    await asyncio.sleep(0.01)
            assert time.monotonic() - started > 1 + 2 - 0.1
            server.start()
            gateway = await asyncio.wait_for(starting, 20)

    assert {line["event"] for line in lines} == {"bus_disconnected"}
    assert lines[0]["servers"] == [f"127.0.0.1:{server.port}"]
    await gateway.close()


@pytest.mark.parametrize("dead", [1, 2])
async def test_a_start_needs_one_of_the_servers_in_the_list(tmp_path: Path, dead: int) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        urls = [server.url, *(f"nats://127.0.0.1:{nats_port(0)}" for _ in range(dead))]
        servers, seed = Servers(tuple(urls)), server.seeds[Role.GATEWAY]
        for name in ("gateway-0", "gateway-1", "gateway-2"):  # each begins with another one
            async with asyncio.timeout(20):
                gateway = await JetStreamBus.connect(servers, seed, name)
                await gateway.append(f"enroll.0.demo.{name}.csr.0.request", Message(b"{}", {}))
            await gateway.close()


async def test_a_consumer_goes_on_after_the_server_was_killed(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway = await server.connect(Role.GATEWAY)
        validator = await server.connect(Role.VALIDATOR)
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        await validator.consume("ENROLL_0", "validator", arrived.put_nowait, 8)
        await gateway.append(REQUEST, Message(b"{}", {}))
        await (await asyncio.wait_for(arrived.get(), 10)).ack()
        server.kill()
        server.start()
        later = "enroll.0.demo.tz.csr.0.request"
        await eventually_append(gateway, later)

        async with asyncio.timeout(30):
            while (delivery := await arrived.get()).stored.subject != later:
                await delivery.ack()
        assert delivery.deliveries >= 1
        await gateway.close()
        await validator.close()


async def test_a_message_whose_worker_died_is_handed_to_another(tmp_path: Path) -> None:
    with nats_server(tmp_path) as server:
        await server.provision()
        gateway = await server.connect(Role.GATEWAY)
        first, second = await server.connect(Role.VALIDATOR), await server.connect(Role.VALIDATOR)
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        await first.consume("ENROLL_0", "validator", arrived.put_nowait, 8)
        await gateway.append(REQUEST, Message(b"{}", {}))
        await asyncio.wait_for(arrived.get(), 10)
        await first.close()  # dies without a word about the message

        again: asyncio.Queue[Delivery] = asyncio.Queue()
        await second.consume("ENROLL_0", "validator", again.put_nowait, 8)
        delivery = await asyncio.wait_for(again.get(), 20)
        assert (delivery.stored.subject, delivery.deliveries) == (REQUEST, 2)
        await gateway.close()
        await second.close()
