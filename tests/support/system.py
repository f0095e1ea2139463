"""A whole system under test: `scepstream up` in a directory of its own, stopped by its own pid."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_SECONDS = 90
STOP_SECONDS = 60


@dataclass
class System:
    """A running `scepstream up`; `run` is what run.json says now."""

    data: Path
    process: subprocess.Popen[str]

    @property
    def run(self) -> dict[str, Any]:
        """run.json, read anew: it changes when a process is restarted."""
        return json.loads((self.data / "run.json").read_text())

    def url(self, profile: str = "demo") -> str:
        """The SCEP URL of a profile."""
        return self.run["profiles"][profile]["url"]

    def challenge(self, profile: str = "demo") -> str:
        """The challenge of a profile."""
        return self.run["profiles"][profile]["challenge"]

    @property
    def ca_file(self) -> Path:
        """The CA certificate."""
        return Path(self.run["ca_file"])

    @property
    def config(self) -> Path:
        """What the services read."""
        return self.data / "scepstream.toml"

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `scepstream` command."""
        return scepstream(*arguments)

    def kill(self, role: str) -> None:
        """Kill -9 for all processes of a role, and wait for those that take their place."""
        before = self.run["pids"][role]
        for pid in before if isinstance(before, list) else [before]:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.run["pids"][role] != before, 30, f"another {role}")

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def scepstream(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the `scepstream` command to its end."""
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, **options
    )


def wait_until(condition: Any, seconds: float = 30.0, what: str = "condition") -> Any:
    """Look until the condition gives something true; fail loudly when it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def start(data: Path, *options: str, env: dict[str, str] | None = None) -> System:
    """Start `scepstream up` and wait until it says that it is ready."""
    command = [sys.executable, "-m", "cli", "up", "--data", str(data)]
    command += ["--port", "0", "--admin-port", "0", *options]
    (data / "run.json").unlink(missing_ok=True)
    output = data.parent / f"{data.name}.out"
    with output.open("w") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    system = System(data, process)
    try:
        wait_until(
            lambda: (data / "run.json").exists() or process.poll() is not None,
            READY_SECONDS,
            "scepstream up",
        )
        assert process.poll() is None, output.read_text()
    except AssertionError:
        process.kill()
        process.wait()
        raise
    return system


@contextmanager
def running(data: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[System]:
    """A system for the length of a block."""
    system = start(data, *options, env=env)
    try:
        yield system
    finally:
        system.stop()
