"""A running server to measure, and load runs against it in a process of their own."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.figures import Figures
from shared.config.load import inherited_environment

ROOT = Path(__file__).parent.parent
_START_SECONDS = 30
_STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server listens, whose CPU counts, and whose network namespace it lives in."""

    name: str
    url: str
    challenge: str
    pids: tuple[tuple[str, int], ...]
    namespace_of: int | None = None
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """How a level loads a server."""

    n: int
    concurrency: int
    warmup: int = 50
    ber: bool = False


def load(target: Target, shape: Shape) -> Figures:
    """One load run as a child process, inside the server's namespace where it has its own."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [*_enter(target), *_command(target, shape), "--json", str(figures)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not figures.exists():
            raise RuntimeError(f"load run against {target.name} died: {done.stderr[-2000:]}")
        return msgspec.json.decode(figures.read_bytes(), type=list[Figures])[0]


def _enter(target: Target) -> list[str]:
    if target.namespace_of is None:
        return []
    return ["nsenter", "--target", str(target.namespace_of), "--net"]


def _command(target: Target, shape: Shape) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.load"]
    command += ["--url", target.url, "--challenge", target.challenge, "--wait", str(_START_SECONDS)]
    command += ["--n", str(shape.n), "--concurrency", str(shape.concurrency)]
    command += ["--warmup", str(shape.warmup)]
    command += [f"--pid={name}={pid}" for name, pid in target.pids]
    command += ["--ber"] * shape.ber + ["--lenient"] * target.lenient
    return command


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, stopped by its own pid; it writes to `log`, lest a full pipe stops it."""
    with log.open("wb") as out:
        # All load comes from one address: its rate is what is measured.
        environment = {**inherited_environment(), "SCEPSTREAM_GATEWAY_RATE_PER_SOURCE": "0"}
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def tail(log: Path) -> str:
    """The last words of a server that did not start."""
    return log.read_text(errors="replace")[-2000:]
