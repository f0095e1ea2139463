"""What is held stays held: through kills of every process, and through a restart of all."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from shared.scep.certrep import CertRep, PkiStatus
from tests.support import messages as m
from tests.support.prepared import add_profiles, command, prepared
from tests.support.requests import (
    Device,
    Endpoint,
    Request,
    asked,
    certificate,
    der,
    recorded,
)
from tests.support.system import System, start, wait_until

GATEWAYS = ("--gateways", "2")


@dataclass
class Restarted:
    """A system that is stopped and started on the same data."""

    system: System

    def again(self) -> None:
        self.system.stop()
        self.system = start(self.system.data, *GATEWAYS)

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint.of(self.system, "manual", gateway) for gateway in (0, 1)]


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    layout = prepared(tmp_path_factory.mktemp("held") / "data")
    add_profiles(layout, {"manual": {"approval": "manual"}})
    found = Restarted(start(layout.root, *GATEWAYS))
    try:
        yield found
    finally:
        found.system.stop()


@pytest.fixture(scope="module")
def identity() -> m.Identity:
    """One key for many transactions."""
    return Device.new().identity


@pytest.fixture
def device(identity: m.Identity) -> Device:
    return Device(identity)


@contextmanager
def killed(system: System, role: str) -> Iterator[None]:
    """Kill -9, and the supervisor's new process at the end of the block."""
    before = system.run["pids"][role]
    for pid in before if isinstance(before, list) else [before]:
        os.kill(pid, signal.SIGKILL)
    yield
    wait_until(lambda: system.run["pids"][role] != before, 30, f"another {role}")


def statuses(endpoints: list[Endpoint], device: Device, request: Request) -> set[PkiStatus]:
    """What the repeated request and a poll get at every gateway."""
    return {
        asked(endpoint, message).status
        for endpoint in endpoints
        for message in (request, device.poll(endpoint))
    }


def approve(system: System, device: Device) -> None:
    wanted = device.transaction.decode()
    done = command("approve", wanted, "--config", str(system.config))
    assert done.returncode == 0, done.stdout


def certificates(endpoints: list[Endpoint], device: Device, request: Request) -> set[bytes]:
    """The same once it is decided."""

    def end(endpoint: Endpoint, message: Request) -> CertRep:
        def found() -> CertRep | None:
            reply = asked(endpoint, message)
            return None if reply.status is PkiStatus.PENDING else reply

        return wait_until(found, 60, "the decision's effect")

    return {
        der(certificate(endpoint, device, end(endpoint, message)))
        for endpoint in endpoints
        for message in (request, device.poll(endpoint))
    }


@pytest.mark.parametrize("role", ["gateway", "validator", "issuer", "nats"])
def test_what_is_held_outlives_a_kill_and_is_then_approved_into_one_certificate(
    manual: Restarted, device: Device, role: str
) -> None:
    system, endpoints = manual.system, manual.endpoints()
    request = device.enrollment(endpoints[0])
    assert asked(endpoints[0], request).status is PkiStatus.PENDING
    recorded(system, device, "held")
    with killed(system, role):
        assert statuses(endpoints, device, request) == {PkiStatus.PENDING}
    approve(system, device)
    assert len(certificates(endpoints, device, request)) == 1


@pytest.mark.parametrize("role", ["validator", "issuer"])
def test_an_approval_counts_though_who_acts_on_it_dies_with_it(
    manual: Restarted, device: Device, role: str
) -> None:
    system, endpoints = manual.system, manual.endpoints()
    request = device.enrollment(endpoints[0])
    assert asked(endpoints[0], request).status is PkiStatus.PENDING
    recorded(system, device, "held")
    with killed(system, role):
        approve(system, device)
    assert len(certificates(endpoints, device, request)) == 1


def test_what_is_held_outlives_a_restart_of_everything(
    manual: Restarted, identity: m.Identity
) -> None:
    kept, denied = Device(identity), Device(identity)
    endpoint = manual.endpoints()[0]
    request = kept.enrollment(endpoint)
    for message in (request, denied.enrollment(endpoint)):
        assert asked(endpoint, message).status is PkiStatus.PENDING
    for device in (kept, denied):
        recorded(manual.system, device, "held")
    wanted = denied.transaction.decode()
    config = str(manual.system.config)
    assert command("deny", wanted, "--note", "no", "--config", config).returncode == 0
    manual.again()
    endpoints = manual.endpoints()
    assert statuses(endpoints, kept, request) == {PkiStatus.PENDING}
    approve(manual.system, kept)
    assert len(certificates(endpoints, kept, request)) == 1
    for endpoint in endpoints:
        assert asked(endpoint, denied.poll(endpoint)).fail_info_text == "no"
