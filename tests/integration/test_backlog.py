"""A service that stands still is seen by the metrics of another."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.scep.certrep import PkiStatus
from tests.support.requests import Device, Endpoint, asked, ended, send
from tests.support.system import System, running, wait_until


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("backlog") / "data") as found:
        yield found


def waiting(system: System, role: str) -> tuple[float, float]:
    """How many wait for a service, and for how many seconds the first has."""
    text = send("GET", system.run["admin_url"] + "/metrics").text
    found = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("role") == role
    }
    count = found.get("scepstream_waiting_enrollments", -1.0)
    return count, found.get("scepstream_oldest_waiting_seconds", -1.0)


@pytest.mark.parametrize("role", ["validator", "issuer"])
def test_what_waits_for_a_service_that_stands_still_is_told(system: System, role: str) -> None:
    wait_until(lambda: waiting(system, role) == (0, 0), 30, "nothing waits")
    demo, device = Endpoint.of(system), Device.new()
    (pid,) = system.run["pids"][role]
    os.kill(pid, signal.SIGSTOP)
    try:
        asking = threading.Thread(target=asked, args=(demo, request := device.enrollment(demo)))
        asking.start()
        wait_until(lambda: waiting(system, role)[0] == 1, 30, "one waits")
        wait_until(lambda: waiting(system, role)[1] > 3, 30, "longer and longer")
    finally:
        os.kill(pid, signal.SIGCONT)
    asking.join()

    assert ended(demo, request).status is PkiStatus.SUCCESS
    wait_until(lambda: waiting(system, role) == (0, 0), 30, "nothing waits any more")
