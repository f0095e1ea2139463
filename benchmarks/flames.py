"""Flame graphs of every process under load, by py-spy."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.target import Shape, Target, load

PY_SPY: Final = Path(sys.executable).parent / "py-spy"
_SECONDS: Final = 8
_RATE: Final = 200
_PYTHON: Final = ("gateway", "validator", "issuer", "audit")


def profile(target: Target, shape: Shape, folder: Path) -> list[Path]:
    """Record each Python process while it is under load; return the SVG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, running = [], []
    for name, pid in target.pids:
        if name not in _PYTHON:
            continue
        path = folder / f"{name}-{pid}-{shape.concurrency}.svg"
        command = [str(PY_SPY), "record", "--duration", str(_SECONDS), "--rate", str(_RATE)]
        command += ["--pid", str(pid), "--output", str(path)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        paths.append(path)
    load(target, shape)
    for process in running:
        process.wait()
    return paths
