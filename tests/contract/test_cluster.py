"""What three nats-servers do together, seen as one bus."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

from shared.bus.core import AppendConflictError, BusUnavailableError
from shared.bus.servers import Servers
from shared.bus.waiting import until_it_answers
from shared.log.envelope import Message
from shared.log.roles import Role
from shared.runtime.moving import Mover
from shared.runtime.process import background
from tests.support.nats_cluster import NAMES, Cluster, nats_cluster

STREAM = "ENROLL_0"
MISLED = 3
HEALED_SECONDS = 12


def request(name: str) -> str:
    return f"enroll.0.demo.{name}.csr.0.request"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes, provisioned as soon as they answer."""
    with nats_cluster(tmp_path) as found:
        await found.provision()
        try:
            yield found
        finally:
            await found.close()


async def test_provisioning_waits_for_a_cluster_that_still_elects_its_leaders(
    cluster: Cluster,
) -> None:
    await cluster.provision()
    leader = await cluster.leader(STREAM)
    gateways = {name: await cluster.connect(Role.GATEWAY, name) for name in NAMES}
    for name, gateway in gateways.items():
        await gateway.append(request(f"by-{name}"), Message(b"{}", {}))
    await gateways[leader].close()
    cluster.nodes[leader].kill()
    others = tuple(name for name in NAMES if name != leader)
    await cluster.leader(STREAM, others)
    async with asyncio.timeout(30):
        await eventually(gateways[others[0]], request("after"))


async def eventually(bus: object, subject: str) -> None:
    while True:
        try:
            await bus.append(subject, Message(b"{}", {}))  # type: ignore[attr-defined]
        except BusUnavailableError:
            await asyncio.sleep(0.1)
        except AppendConflictError:
            return
        else:
            return


async def test_nothing_there_is_the_leaders_word_however_slow_the_replica_that_answers(
    cluster: Cluster,
) -> None:
    """A follower that is behind answers direct gets all the same: they alone mislead."""
    leader = await cluster.leader(STREAM)
    slow = next(name for name in NAMES if name != leader)
    writer = await cluster.connect(Role.GATEWAY, leader)
    reader = await cluster.connect(Role.GATEWAY, slow)
    cluster.slow_down(slow, 0.7)
    misled = 0
    for number in range(100):
        subject, wildcard = request(f"new-{number}"), f"enroll.0.demo.new-{number}.*.*.request"
        written = await writer.append(subject, Message(b"{}", {}))
        direct, sure, newest = await asyncio.gather(
            reader.get_last(STREAM, subject),
            reader.get_last_or_leader(STREAM, subject),
            reader.get_last_from_leader(STREAM, wildcard),
        )
        misled += direct is None
        assert [stored and stored.sequence for stored in (sure, newest)] == [written] * 2
        if misled >= MISLED:
            break
    assert misled >= MISLED
    assert await reader.get_last_or_leader(STREAM, request("unknown")) is None


async def test_what_waiting_does_not_cure_is_raised_at_once() -> None:
    calls = []

    async def refuse() -> None:
        calls.append(1)
        raise APIError(code=400, err_code=10058, description="stream name already in use")

    with pytest.raises(APIError):
        await until_it_answers(refuse, 60)
    assert len(calls) == 1


async def test_a_cluster_that_never_answers_is_given_up_in_the_end() -> None:
    async def silent() -> None:
        raise NatsTimeoutError

    with pytest.raises(NatsTimeoutError):
        await until_it_answers(silent, 0)


async def test_a_service_on_a_leader_that_is_cut_off_moves_to_its_peers_in_time(
    cluster: Cluster,
) -> None:
    """Its own node stays reachable, and knows of no trouble for a while."""
    leader = await cluster.leader(STREAM)
    servers = Servers(cluster.urls, replicated=True)
    bus = await cluster.connect(Role.GATEWAY, leader, timeout=1.5)
    mover = Mover(bus, servers, cluster.seeds[Role.GATEWAY], Role.GATEWAY, "g")
    async with background(mover.run()):
        await bus.append(request("before"), Message(b"{}", {}))
        cluster.isolate(leader)
        started = time.monotonic()
        async with asyncio.timeout(30):
            await eventually(bus, request("after"))
        healed = time.monotonic() - started
        here = bus.client.connected_url

    assert here is not None
    assert here.geturl() != cluster.nodes[leader].url
    assert healed < HEALED_SECONDS


async def test_a_step_of_the_start_on_a_node_that_is_cut_off_is_done_on_another(
    cluster: Cluster,
) -> None:
    """A service that starts there has done nothing yet that could tell it."""
    leader = await cluster.leader(STREAM)
    cluster.isolate(leader)
    bus = await cluster.connect(Role.GATEWAY, leader, timeout=1.5)
    servers = Servers(cluster.urls, replicated=True)
    mover = Mover(bus, servers, cluster.seeds[Role.GATEWAY], Role.GATEWAY, "g")

    async def step() -> int:
        return await bus.append(request("first"), Message(b"{}", {}))

    async with asyncio.timeout(30):
        assert await mover.retry_step(step) == 1
    here = bus.client.connected_url
    assert here is not None
    assert here.geturl() != cluster.nodes[leader].url


async def test_a_service_stays_where_no_node_takes_appends(cluster: Cluster) -> None:
    """Without a quorum anywhere, moving about would only lose what is under way."""
    bus = await cluster.connect(Role.VALIDATOR, "a", timeout=1.0)
    servers = Servers(cluster.urls, replicated=True)
    mover = Mover(bus, servers, cluster.seeds[Role.VALIDATOR], Role.VALIDATOR, "v")
    tried: list[str] = []
    works = mover._works

    async def trying(url: str) -> bool:
        tried.append(url)
        return await works(url)

    mover._works = trying  # type: ignore[method-assign]
    for name in NAMES:
        cluster.isolate(name)
    async with background(mover.run()):
        async with asyncio.timeout(40):
            while len(tried) < len(NAMES):
                await asyncio.sleep(0.1)
        here = bus.client.connected_url

        assert bus.health.problems()
        assert here is not None
        assert here.geturl() == cluster.nodes["a"].url
        cluster.reunite()
        async with asyncio.timeout(30):
            while bus.health.problems():
                await asyncio.sleep(0.1)
