"""Four validators race for one token, and for one device's places; no kill undoes anything."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle

import pytest

from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from tests.chaos.killer import alive, pids
from tests.support import messages as m
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    certificate,
    counted,
    der,
    ended,
    issued,
    recorded,
    shown,
)
from tests.support.system import System, start, wait_until
from tests.support.tokens import token

REPLICAS = ("--gateways", "2", "--validators", "4", "--issuers", "2")
KEYS = 50
TOKENS = 10
LIMIT = 3
SAME = 50


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    found = start(tmp_path_factory.mktemp("races") / "data", *REPLICAS)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def identities() -> list[m.Identity]:
    """Keys take long to make."""
    with ThreadPoolExecutor(2) as pool:
        return [device.identity for device in pool.map(lambda _: Device.new(), range(KEYS))]


def endpoints(system: System) -> list[Endpoint]:
    return [Endpoint.of(system, "corp", gateway) for gateway in range(len(system.run["urls"]))]


def all_at_once(system: System, requests: Sequence[Request]) -> list[CertRep]:
    """Every request at the same time, over all gateways."""
    pairs = zip(cycle(endpoints(system)), requests)
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda pair: ended(*pair), pairs))


def validators_at_work(system: System) -> int:
    """How many validators have written a verdict."""
    urls = system.run["metrics_urls"]
    return sum(
        counted(url, "scepstream_verdicts_total") > 0
        for name, url in urls.items()
        if name.startswith("validator-")
    )


def successes(replies: Sequence[CertRep]) -> int:
    return sum(reply.status is PkiStatus.SUCCESS for reply in replies)


def same_token(
    system: System, identities: list[m.Identity], name: str, challenge: str
) -> tuple[list[Device], list[Request]]:
    """A request with this token and common name from every key."""
    endpoint = endpoints(system)[0]
    subject = m.name((m.COMMON_NAME, m.UTF8, name.encode()))
    devices = [Device(identity) for identity in identities]
    requests = [
        device.enrollment(endpoint, device.csr(challenge, subject=subject)) for device in devices
    ]
    return devices, requests


def restart(system: System) -> None:
    """Kill -9 for everything, then a start on the same data."""
    running = system.run["pids"]["supervisor"], *pids(system.run).values()
    for pid in running:
        with suppress(ProcessLookupError):  # without their supervisor the others end too
            os.kill(pid, signal.SIGKILL)
    system.process.wait()
    wait_until(lambda: not any(map(alive, running)), 20, "the end of all processes")
    system.process = start(system.data, *REPLICAS).process


def test_of_fifty_keys_with_one_token_exactly_one_gets_a_certificate(
    system: System, identities: list[m.Identity]
) -> None:
    holder = Device(identities[0])
    challenge = token(system, holder)
    devices, requests = same_token(system, identities, holder.name, challenge)
    replies = all_at_once(system, requests)

    assert successes(replies) == 1
    refused = [reply for reply in replies if reply.status is PkiStatus.FAILURE]
    assert len(refused) == KEYS - 1
    assert {reply.fail_info for reply in refused} == {FailInfo.BAD_MESSAGE_CHECK}
    assert {reply.fail_info_text for reply in refused} == {
        "the challenge was already used by another key"
    }
    assert validators_at_work(system) == 4
    for device, reply in zip(devices, replies, strict=True):
        state = "issued" if reply.status is PkiStatus.SUCCESS else "rejected"
        line = recorded(system, device, state)
        assert line["result"] == ("issued" if state == "issued" else "replay")


def test_of_ten_tokens_for_one_device_exactly_three_are_good(
    system: System, identities: list[m.Identity]
) -> None:
    replies = device_with_tokens(system, identities, "device-of-ten", TOKENS)

    assert successes(replies) == LIMIT
    refused = [reply for reply in replies if reply.status is PkiStatus.FAILURE]
    assert {reply.fail_info for reply in refused} == {FailInfo.BAD_REQUEST}
    assert {reply.fail_info_text for reply in refused} == {
        "the device has enrolled too often within 24 hours"
    }


def device_with_tokens(
    system: System, identities: list[m.Identity], subject: str, number: int
) -> list[CertRep]:
    """So many tokens for one device id, each with a key of its own, at once."""
    endpoint = endpoints(system)[0]
    devices = [Device(identity) for identity in identities[:number]]
    requests = [
        device.enrollment(endpoint, device.csr(token(system, device, sub=subject)))
        for device in devices
    ]
    return all_at_once(system, requests)


def test_the_same_request_fifty_times_is_one_certificate_and_one_place(
    system: System, identities: list[m.Identity]
) -> None:
    device, endpoint = Device(identities[0]), endpoints(system)[0]
    challenge = token(system, device, sub="device-of-fifty")
    request = device.enrollment(endpoint, device.csr(challenge))
    replies = all_at_once(system, [request] * SAME)

    assert len({der(certificate(endpoint, device, reply)) for reply in replies}) == 1
    kinds = [e["type"] for e in shown(system, recorded(system, device, "issued")["enrollment"])]
    assert kinds.count("EnrollmentApproved") == kinds.count("CertificateIssued") == 1
    replies = device_with_tokens(system, identities, "device-of-fifty", LIMIT)
    assert successes(replies) == LIMIT - 1


def test_after_a_kill_of_everything_tokens_stay_used_and_devices_counted(
    system: System, identities: list[m.Identity]
) -> None:
    holder = Device(identities[0])
    challenge = token(system, holder, sub="device-of-the-kill")
    (owner, _), (first, stolen) = same_token(system, identities[:2], holder.name, challenge)
    endpoint = endpoints(system)[0]
    kept = ended(endpoint, first)
    assert kept.status is PkiStatus.SUCCESS
    assert successes(device_with_tokens(system, identities, "device-of-the-kill", 2)) == 2

    restart(system)

    again = ended(endpoints(system)[1], first)
    assert der(issued(owner, again)) == der(issued(owner, kept))
    refused = ended(endpoints(system)[0], stolen)
    assert (refused.status, refused.fail_info) == (
        PkiStatus.FAILURE,
        FailInfo.BAD_MESSAGE_CHECK,
    )
    assert "already used by another key" in refused.fail_info_text
    replies = device_with_tokens(system, identities, "device-of-the-kill", TOKENS)
    assert successes(replies) == 0
