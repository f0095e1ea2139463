"""What three nats-servers do together, seen as one bus."""

import asyncio
from pathlib import Path

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

from shared.bus.core import AppendConflictError, BusUnavailableError
from shared.bus.topology import Role
from shared.bus.waiting import until_it_answers
from shared.stored import Message
from tests.nats_cluster import NAMES, nats_cluster

STREAM = "ENROLL_0"


def request(name: str) -> str:
    return f"enroll.0.demo.{name}.csr.0.request"


async def test_provisioning_waits_for_a_cluster_that_still_elects_its_leaders(
    tmp_path: Path,
) -> None:
    with nats_cluster(tmp_path) as cluster:
        await cluster.provision()
        await cluster.provision()
        leader = await cluster.leader(STREAM)
        gateways = {name: await cluster.connect(Role.GATEWAY, name) for name in NAMES}
        for name, gateway in gateways.items():
            await gateway.append(request(f"by-{name}"), Message(b"{}", {}))
        await gateways.pop(leader).close()
        cluster.nodes[leader].kill()
        others = tuple(name for name in NAMES if name != leader)
        await cluster.leader(STREAM, others)
        async with asyncio.timeout(30):
            await eventually(gateways[others[0]], request("after"))
        for gateway in gateways.values():
            await gateway.close()


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
