"""A gateway accepts when it can serve; until then its operations port tells what is missing."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.requests import Endpoint, connection, logged, send
from tests.support.system import System, wait_until


def test_a_gateway_that_was_killed_answers_no_503_when_it_is_back(
    system: System, demo: Endpoint
) -> None:
    """Its socket stays with the supervisor: connections wait until it serves."""
    for _ in range(3):
        (before,) = system.run["pids"]["gateway"]
        with connection(demo) as opened:  # on an accepted connection it still answers or is gone
            os.kill(before, signal.SIGKILL)
            opened.ended()
        assert [demo.get("GetCACert").status_code for _ in range(5)] == [200] * 5
        wait_until(lambda: system.run["pids"]["gateway"] != [before], 30, "another gateway")  # noqa: B023 - called at once
    assert not logged(system, "serving_unready")


def test_a_gateway_that_waits_for_the_bus_is_alive_unready_and_does_not_accept(
    system: System, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        away = free.getsockname()[1]
    with (
        socket.create_server(("127.0.0.1", 0)) as scep,
        socket.create_server(("127.0.0.1", 0)) as operations,
        (tmp_path / "log").open("w") as log,
    ):
        sockets = (scep.fileno(), operations.fileno())
        command = [sys.executable, "-m", "cli", "gateway", "--config", str(system.config)]
        command += ["--fd", str(sockets[0]), "--operations-fd", str(sockets[1])]
        environment = {**os.environ, "SCEPSTREAM_BUS_URL": f"nats://127.0.0.1:{away}"}
        process = subprocess.Popen(command, pass_fds=sockets, stderr=log, env=environment)
        try:
            host, port = operations.getsockname()
            assert send("GET", f"http://{host}:{port}/healthz").status_code == 200
            ready = send("GET", f"http://{host}:{port}/readyz")
            assert (ready.status_code, ready.text) == (503, "bus\n")
            with socket.create_connection(scep.getsockname()) as device:
                device.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                device.settimeout(1)
                try:
                    answer = device.recv(100)
                except TimeoutError:
                    answer = b""
            assert answer == b""
        finally:
            process.kill()
            process.wait()
