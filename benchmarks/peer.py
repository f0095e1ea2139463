"""The peer: micromdm's `scepserver` (Debian package `scep`) in its own network namespace."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.target import Target, running, tail

_CHALLENGE = "secret"
_PORT = 8080
_NAMESPACE_SECONDS = 10
# The server binds every address. With `exec`, unshare, sh and the server have one pid.
_START = 'ip link set lo up && exec scepserver "$@"'


def missing() -> str:
    """Return why the peer cannot run here, "" if it can."""
    if shutil.which("scepserver") is None:
        return "scepserver is not installed (Debian package scep)"
    try:
        subprocess.run(["unshare", "--net", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "cannot create a network namespace, which scepserver requires: run as root"
    return ""


@contextmanager
def peer() -> Iterator[Target]:
    """Run a server with a fresh depot: its cost per enrollment grows with what it has issued."""
    with tempfile.TemporaryDirectory(prefix="peer-") as folder:
        depot, log = Path(folder) / "depot", Path(folder) / "log"
        init = ["scepserver", "ca", "-init", "-keySize", "2048", "-depot", str(depot)]
        subprocess.run(init, check=True, capture_output=True)
        options = ["-depot", str(depot), "-port", str(_PORT), "-allowrenew", "0"]
        options += ["-challenge", _CHALLENGE]
        command = ["unshare", "--net", "sh", "-c", _START, "sh", *options]
        with running(command, log) as process:
            _await_namespace(process, log)
            yield Target(
                name="peer",
                url=f"http://127.0.0.1:{_PORT}/scep",
                challenge=_CHALLENGE,
                pids=(("scepserver", process.pid),),
                namespace_of=process.pid,
                lenient=True,
            )


def _await_namespace(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the process has left our namespace: entering its namespace earlier enters ours."""
    ours, deadline = _namespace("self"), time.monotonic() + _NAMESPACE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if _namespace(process.pid) != ours:
            return
        time.sleep(0.01)
    raise RuntimeError(f"peer did not start: {tail(log)}")


def _namespace(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())
