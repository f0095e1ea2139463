"""What three nats-servers do together, seen as one bus."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

from shared.bus.core import AppendConflictError, BusUnavailableError
from shared.bus.topology import Role
from shared.bus.waiting import until_it_answers
from shared.stored import Message
from tests.nats_cluster import NAMES, Cluster, nats_cluster

STREAM = "ENROLL_0"
MISLED = 3


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
