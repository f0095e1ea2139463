"""Tokens under kill -9: each is raced for by several keys, and is good for exactly one of them."""

import asyncio
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from tests.chaos.killer import Killer
from tests.support import messages as m
from tests.support.requests import Device, Endpoint, ended
from tests.support.system import System, running
from tests.support.tokens import token

SECONDS = min(float(os.environ.get("TEST_CHAOS_SECONDS", "40")), 120.0)
SEED = int(os.environ.get("TEST_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
REPLICAS = ("--gateways", "2", "--validators", "4", "--issuers", "2")
KEYS = 4


def test_whatever_is_killed_each_token_is_good_for_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        identities = [d.identity for d in pool.map(lambda _: Device.new(), range(KEYS))]
    with running(tmp_path / "data", *REPLICAS) as system:
        killer = Killer(system, random.Random(SEED), 2.0)
        raced = asyncio.run(_race(system, killer, identities))

        assert killer.kills.total() > 5, killer.story
        assert len(raced) > 5
        lost = [(number, statuses) for number, statuses in enumerate(raced) if not _fair(statuses)]
        assert lost == [], f"TEST_CHAOS_SEED={SEED}: {killer.story}"


def _fair(replies: list[CertRep]) -> bool:
    """One certificate; everybody else is told that another key was faster."""
    refused = [reply for reply in replies if reply.status is PkiStatus.FAILURE]
    good = [reply for reply in replies if reply.status is PkiStatus.SUCCESS]
    texts = {(reply.fail_info, reply.fail_info_text) for reply in refused}
    said = "the challenge was already used by another key"
    return len(good) == 1 and texts == {(FailInfo.BAD_MESSAGE_CHECK, said)}


async def _race(
    system: System, killer: Killer, identities: list[m.Identity]
) -> list[list[CertRep]]:
    """One token after another, while the killer is at work."""
    until, found = time.monotonic() + SECONDS, []
    endpoints = [Endpoint.of(system, "corp", gateway) for gateway in range(2)]

    async def races() -> None:
        while time.monotonic() < until:
            holder = Device(identities[0])
            challenge = token(system, holder)
            subject = m.name((m.COMMON_NAME, m.UTF8, holder.name.encode()))
            devices = [holder, *(Device(identity) for identity in identities[1:])]
            requests = [
                device.enrollment(endpoints[0], device.csr(challenge, subject=subject))
                for device in devices
            ]
            found.append(
                await asyncio.gather(
                    *(
                        asyncio.to_thread(ended, endpoints[number % 2], request)
                        for number, request in enumerate(requests)
                    )
                )
            )

    async with asyncio.TaskGroup() as group:
        group.create_task(killer.run(until))
        group.create_task(races())
    return found
