"""The log meets a full disk, and there is room again: told while it lasts, over by itself."""

import resource
from pathlib import Path

import httpx

from tests.support.system import System, running, scepstream, wait_until

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def enrolls(system: System) -> bool:
    command = ("enroll", system.url(), "--challenge", system.challenge(), "--cn", "device")
    files = ("--ca-file", str(system.ca_file), "--out", str(system.data.parent / "out"), "--force")
    return scepstream(*command, *files).returncode == 0


def missing(system: System, name: str) -> str:
    url = system.run["metrics_urls"][name].replace("/metrics", "/readyz")
    answer = httpx.get(url, timeout=5)
    return "" if answer.is_success else answer.text


def test_a_full_disk_makes_services_not_ready_and_room_makes_them_ready_again(
    tmp_path: Path,
) -> None:
    """A limit on the size of its files is to nats-server what a full disk is."""
    with running(tmp_path / "data") as system:
        assert enrolls(system)
        nats = system.run["pids"]["nats"]
        resource.prlimit(nats, resource.RLIMIT_FSIZE, (1, UNLIMITED[1]))
        assert not enrolls(system)
        assert "ENROLL_0 rejects appends" in missing(system, "gateway-0")

        resource.prlimit(nats, resource.RLIMIT_FSIZE, UNLIMITED)
        wait_until(lambda: system.run["pids"]["nats"] != nats, 60, "another nats-server")
        wait_until(lambda: not missing(system, "gateway-0"), 60, "the gateway to be ready")
        assert enrolls(system)
        assert not missing(system, "validator-0")

    said = (tmp_path / "data.out").read_text()
    assert said.count("restarting nats-server") == 1
