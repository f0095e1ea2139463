"""The whole system, run by `scepstream up` on free ports in a temporary directory."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.target import ROOT, Target, running, tail

_COMMAND: Final = (sys.executable, "-m", "cli", "up")
_START_SECONDS = 60
_POLL_SECONDS = 0.1


class Profile(msgspec.Struct, frozen=True):
    url: str
    challenge: str


class Run(msgspec.Struct, frozen=True):
    """The part of run.json that is needed here."""

    profiles: dict[str, Profile]
    pids: dict[str, int | list[int]]


def missing() -> str:
    """Return why the system cannot run here, "" if it can."""
    probe = subprocess.run(
        [*_COMMAND, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if probe.returncode == 0:
        return ""
    return "scepstream up fails: " + "".join(probe.stderr.splitlines()[-1:])


@contextmanager
def system(
    profile: str = "demo",
    tree: Path = ROOT,
    options: Sequence[str] = (),
    kept: Path | None = None,
) -> Iterator[Target]:
    """Run the system from a source tree; yield the SCEP profile's URL, challenge and all pids.

    `options` are further options of `scepstream up`. `kept` is a folder whose data outlives the
    run, so that another one can start with it.
    """
    with tempfile.TemporaryDirectory(prefix="scepstream-") as folder:
        data, log = (kept or Path(folder)) / "data", Path(folder) / "log"
        data.mkdir(exist_ok=True)
        (data / "run.json").unlink(missing_ok=True)
        command = [*_COMMAND, "--data", str(data), "--port", "0", "--admin-port", "0", *options]
        with running(command, log, tree) as process:
            run = _started(process, data / "run.json", log)
            chosen = run.profiles[profile]
            yield Target("scepstream", chosen.url, chosen.challenge, tuple(_pids(run)))


def _started(process: subprocess.Popen[bytes], path: Path, log: Path) -> Run:
    """Wait for a complete run.json and return it."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Run)
        except (FileNotFoundError, msgspec.DecodeError):
            time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"scepstream up did not start: {tail(log)}")


def _pids(run: Run) -> Iterator[tuple[str, int]]:
    for name, found in run.pids.items():
        for pid in [found] if isinstance(found, int) else found:
            yield name, pid
