"""A second shard while the system runs: nothing is restarted, and devices notice nothing."""

import os
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from cli.up.layout import write_private
from shared.config.load import load
from shared.log.subjects import transaction_token
from shared.scep.certrep import PkiStatus
from tests.support import messages as m
from tests.support.prepared import command, tell_to_reload
from tests.support.requests import Device, Endpoint, ask, ended, recorded
from tests.support.system import System, running, wait_until

SECONDS = 6.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("shards") / "data", "--validators", "2") as found:
        yield found


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


def add_epoch(system: System, *shards: str, effective_at: float) -> None:
    """The file as an operator would change it."""
    text = system.config.read_text()
    if "[[log.epochs]]" not in text:
        text += '\n[[log.epochs]]\neffective_at = 0\nshards = ["0"]\n'
    listed = ", ".join(f'"{shard}"' for shard in shards)
    text += f"\n[[log.epochs]]\neffective_at = {effective_at}\nshards = [{listed}]\n"
    write_private(system.config, text.encode())


def unready(system: System) -> dict[str, str]:
    """Every process that is not ready, and what it lacks."""
    found = {}
    for name, url in system.run["metrics_urls"].items():
        with httpx.Client(trust_env=False) as client:
            answer = client.get(url.replace("/metrics", "/readyz"))
        if not answer.is_success:
            found[name] = answer.text
    return found


def shard_of(system: System, device: Device) -> str:
    """Where the newest epoch of the file puts a device's request."""
    newest = load(system.config).epochs()[-1]
    token = transaction_token("demo", device.transaction, m.spki(device.identity.key.public_key()))
    return newest.shard("demo", token)


def spread(system: System, identity: m.Identity, *shards: str) -> list[Device]:
    """Devices on all of these shards, two on each."""
    devices: dict[str, list[Device]] = {shard: [] for shard in shards}
    while any(len(found) < 2 for found in devices.values()):
        device = Device(identity)
        devices[shard_of(system, device)].append(device)
    return [device for found in devices.values() for device in found[:2]]


def enroll_all(system: System, devices: list[Device]) -> None:
    demo = Endpoint.of(system)
    for device in devices:
        assert ask(demo, device.enrollment(demo)).status is PkiStatus.SUCCESS


def test_a_shard_added_by_a_reload_serves_devices_without_a_restart(
    system: System, identity: m.Identity
) -> None:
    before = system.run["pids"]
    effective_at = time.time() + SECONDS
    add_epoch(system, "0", "1", effective_at=effective_at)
    os.kill(system.process.pid, signal.SIGHUP)
    devices = spread(system, identity, "0", "1")
    enroll_all(system, [Device(identity)])
    wait_until(lambda: time.time() > effective_at, SECONDS * 2, "the epoch is in effect")
    enroll_all(system, devices)

    assert unready(system) == {}
    assert system.run["pids"] == before
    for device in devices:
        line = recorded(system, device, "issued")
        assert line["enrollment"].startswith(f"enroll.{shard_of(system, device)}.")
    done = command("audit", "verify", "--config", str(system.config))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: " in done.stdout


def test_a_service_told_of_a_shard_before_the_bus_is_served_soon(
    system: System, identity: m.Identity
) -> None:
    """Only the services hear of it; `up` makes what they report as missing."""
    add_epoch(system, "2", effective_at=time.time())
    tell_to_reload(system)
    device = Device(identity)
    demo = Endpoint.of(system)
    wait_until(lambda: demo.post(device.enrollment(demo).body).status_code == 200, 30, "served")

    assert ended(demo, device.enrollment(demo)).status is PkiStatus.SUCCESS
    wait_until(lambda: unready(system) == {}, 30, "all are ready")
