"""What one enrollment costs besides CPU: messages by kind, bytes, and system calls.

Messages are counted in nats-server's trace log, system calls by `strace -c`. Both slow the system
down, so they have slices of their own, which are never timed.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from benchmarks.target import Shape, Target, load

_SHAPE: Final = Shape(200, 8, warmup=0)
_LINE: Final = re.compile(
    r'"[^"]*:(?P<client>[a-z]+)-\d+" - "[^"]*" - '
    r"(?P<way><<-|->>) \[H?(?P<verb>PUB|MSG) (?P<subject>\S+) .*?(?P<size>\d+)\]$"
)
# The first prefix that fits a published subject gives the message its kind.
_KINDS: Final[Mapping[str, str]] = {
    "$JS.API.DIRECT.GET.": "direct get",
    "$JS.API.CONSUMER.MSG.NEXT.": "pull",
    "$JS.API.": "other API",
    "$JS.ACK.": "acknowledgement",
    "gw.": "hint",
    "command.": "hint",
    "quota.": "hint",
}
_KIND_OF_THE_REST: Final = "append"
_RECEIVED: Final = "received"
_CALLS: Final = re.compile(
    r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(?P<count>\d+)\s+(?:\d+\s+)?(?P<call>\w+)$"
)
_POLL_SECONDS: Final = 0.05
_WAIT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Per enrollment: messages by process and kind, bytes by process, system calls by process."""

    messages: dict[str, dict[str, float]]
    bytes: dict[str, float]
    calls: dict[str, float]


def measure(target: Target) -> Traffic:
    """Run one slice for the messages, and one for system calls if there is an `strace`."""
    messages, sizes = _messages(target)
    return Traffic(messages, sizes, _system_calls(target) if shutil.which("strace") else {})


def count(log: str) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Return the messages by process and kind, and the bytes by process, of a trace log."""
    found: dict[str, Counter[str]] = {}
    sizes: Counter[str] = Counter()
    for line in log.splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        kind = _RECEIVED if match["way"] == "->>" else _kind(match["subject"])
        found.setdefault(match["client"], Counter())[kind] += 1
        sizes[match["client"]] += int(match["size"])
    return found, sizes


def _kind(subject: str) -> str:
    fitting = (kind for prefix, kind in _KINDS.items() if subject.startswith(prefix))
    return next(fitting, _KIND_OF_THE_REST)


def _messages(target: Target) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    server = dict(target.pids)["nats"]
    arguments = Path(f"/proc/{server}/cmdline").read_text().split("\0")
    config = Path(arguments[arguments.index("-c") + 1])
    before = config.read_text()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trace.log"
        config.write_text(f'{before}\ntrace: true\nlog_file: "{log}"\n')
        os.kill(server, signal.SIGHUP)
        _await(log.exists)
        start = log.stat().st_size
        figures = load(target, _SHAPE)
        config.write_text(before)
        os.kill(server, signal.SIGHUP)
        with log.open() as file:
            file.seek(start)
            found, sizes = count(file.read())
    good = max(figures.good, 1)
    messages = {
        client: {kind: number / good for kind, number in kinds.items()}
        for client, kinds in sorted(found.items())
    }
    return messages, {client: size / good for client, size in sizes.items()}


def _system_calls(target: Target) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        outputs = [
            (name, Path(folder) / f"{name}-{pid}")
            for name, pid in target.pids
            if stack.enter_context(_traced(pid, Path(folder) / f"{name}-{pid}"))
        ]
        figures = load(target, _SHAPE)
        stack.close()
        calls: Counter[str] = Counter()
        for name, path in outputs:
            for line in path.read_text().splitlines():
                match = _CALLS.match(line)
                if match and match["call"] != "total":
                    calls[name] += int(match["count"])
    return {name: number / max(figures.good, 1) for name, number in calls.items()}


@contextlib.contextmanager
def _traced(pid: int, output: Path) -> Iterator[bool]:
    command = ["strace", "-c", "-f", "-p", str(pid), "-o", str(output)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield True
        process.send_signal(signal.SIGINT)
        process.wait(_WAIT_SECONDS)


def _await(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not done() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def table(traffic: Traffic) -> Table:
    kinds = sorted({kind for found in traffic.messages.values() for kind in found})
    shown = Table(title="Per enrollment at 8 clients, untimed")
    for heading in ("process", *kinds, "KiB", "system calls"):
        shown.add_column(heading, justify="right")
    for name in dict.fromkeys((*traffic.messages, *traffic.calls)):
        found = traffic.messages.get(name, {})
        cells = (f"{found[kind]:.2f}" if kind in found else "" for kind in kinds)
        size = f"{traffic.bytes[name] / 1024:.1f}" if name in traffic.bytes else ""
        calls = f"{traffic.calls[name]:.1f}" if name in traffic.calls else ""
        shown.add_row(name, *cells, size, calls)
    return shown
