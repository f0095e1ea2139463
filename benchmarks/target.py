"""A running server to measure, and load runs against it in a separate process."""

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
    """A server's URL, the processes whose CPU counts, and a pid in its network namespace."""

    name: str
    url: str
    challenge: str
    pids: tuple[tuple[str, int], ...]
    namespace_of: int | None = None
    lenient: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The load of one level."""

    n: int
    concurrency: int
    warmup: int = 50
    ber: bool = False
    key_file: Path | None = None


def load(target: Target, shape: Shape) -> Figures:
    """Run the load generator as a child process, in the server's own namespace if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [*_enter(target), *_command(target, shape), "--json", str(figures)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not figures.exists():
            raise RuntimeError(f"load run against {target.name} failed: {done.stderr[-2000:]}")
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
    if shape.key_file is not None:
        command += ["--key-file", str(shape.key_file)]
    command += ["--ber"] * shape.ber + ["--lenient"] * target.lenient
    return command


@contextmanager
def running(command: list[str], log: Path, tree: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server process from the source in `tree`, with its output in the file `log`."""
    with log.open("wb") as out:
        # All load comes from one address, so its rate must not be limited.
        environment = {
            **inherited_environment(),
            "SCEPSTREAM_GATEWAY_RATE_PER_SOURCE": "0",
            "PYTHONPATH": str(tree),
        }
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=tree, env=environment)
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
    """Return the end of the log of a server that did not start."""
    return log.read_text(errors="replace")[-2000:]
