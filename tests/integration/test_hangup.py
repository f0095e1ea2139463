"""SIGHUP to `up` reloads; the SIGHUP of a terminal that was closed ends it, as ever."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.prepared import configure
from tests.support.requests import logged
from tests.support.system import READY_SECONDS, STOP_SECONDS, running, wait_until


def test_a_terminal_that_is_closed_ends_the_system(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    data = tmp_path / "data"
    command = [sys.executable, "-m", "cli", "up", "--data", str(data), "--port=0", "--admin-port=0"]
    # The first terminal that the leader of a session opens is the session's.
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" < {os.ttyname(theirs)}', "sh", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until((data / "run.json").exists, READY_SECONDS, "scepstream up")
        os.close(theirs)
        os.close(ours)
        assert process.wait(STOP_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_a_file_that_does_not_read_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as system:
        pids, text = system.run["pids"], system.config.read_text()
        output = tmp_path / "data.out"
        configure(system.config, "gateway", max_in_flight=-1)
        os.kill(system.process.pid, signal.SIGHUP)
        wait_until(lambda: "reload failed, keeping" in output.read_text(), 20, "a word on it")
        assert "max_in_flight" in output.read_text()

        system.config.write_text(text)
        os.kill(system.process.pid, signal.SIGHUP)
        wait_until(lambda: logged(system, "reloaded"), 20, "reloaded")
        assert system.run["pids"] == pids


def test_a_configuration_that_the_bus_refuses_leaves_the_next_reload_heard(tmp_path: Path) -> None:
    with running(tmp_path / "data") as system:
        text = system.config.read_text()
        output = tmp_path / "data.out"
        system.config.write_text(f"{text}\n[log]\nreplicas = 3\n")  # of one server
        os.kill(system.process.pid, signal.SIGHUP)
        wait_until(lambda: "reload failed, keeping" in output.read_text(), 30, "a word on it")
        assert "cannot create the streams yet" in output.read_text()

        system.config.write_text(text)
        os.kill(system.process.pid, signal.SIGHUP)
        wait_until(lambda: logged(system, "reloaded"), 20, "reloaded")
