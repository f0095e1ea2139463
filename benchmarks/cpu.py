"""CPU seconds, context switches and memory of processes by name, from /proc."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_QUIET = 0.04  # of a core: what idle services use with their heartbeats
_SAMPLE_SECONDS = 0.25

Pids = Iterable[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class _Process:
    """CPU nanoseconds of the live threads, and coarser CPU seconds that include dead threads.

    `switches` of the live threads are voluntary and involuntary.
    """

    threads: dict[str, int]
    total: float
    switches: tuple[int, int] = (0, 0)

    def since(self, before: "_Process") -> float:
        if not self.threads or before.threads.keys() - self.threads.keys():
            return self.total - before.total
        spent = sum(ns - before.threads.get(tid, 0) for tid, ns in self.threads.items())
        return spent / 1e9


Snapshot = dict[tuple[str, int], _Process]


def snapshot(pids: Pids) -> Snapshot:
    """Return each process's CPU use so far; processes that have ended are left out."""
    return {(name, pid): found for name, pid in pids if (found := _read(Path(f"/proc/{pid}")))}


def spent(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """Return CPU seconds by name; a process that ended in between counts as 0."""
    seconds: dict[str, float] = {}
    for (name, pid), now in after.items():
        then = before.get((name, pid), _Process({}, 0.0))
        seconds[name] = seconds.get(name, 0.0) + now.since(then)
    return seconds


def switched(before: Snapshot, after: Snapshot) -> dict[str, tuple[int, int]]:
    """Return voluntary and involuntary context switches by name."""
    found: dict[str, tuple[int, int]] = {}
    for (name, pid), now in after.items():
        then = before.get((name, pid), _Process({}, 0.0)).switches
        sofar = found.get(name, (0, 0))
        found[name] = (
            sofar[0] + now.switches[0] - then[0],
            sofar[1] + now.switches[1] - then[1],
        )
    return found


def resident(pids: Pids) -> dict[str, float]:
    """Return the MiB of memory that each name's processes hold, shared pages counted in each."""
    found: dict[str, float] = {}
    for name, pid in pids:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        found[name] = found.get(name, 0.0) + pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return found


def settled(pids: Pids, limit: float) -> Snapshot:
    """Return a snapshot once the processes are idle, so that work after the last answer counts.

    Wait at most `limit` seconds.
    """
    pids, deadline = tuple(pids), time.monotonic() + limit
    last = snapshot(pids)
    while pids and time.monotonic() < deadline:
        time.sleep(_SAMPLE_SECONDS)  # the sampling interval, not a wait for an event
        this = snapshot(pids)
        if sum(spent(last, this).values()) < _QUIET * _SAMPLE_SECONDS:
            return this
        last = this
    return last


def _read(process: Path) -> _Process | None:
    try:
        fields = (process / "stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    total = (int(fields[11]) + int(fields[12])) / _TICKS
    return _Process(_threads(process), total, _switches(process))


def _threads(process: Path) -> dict[str, int]:
    try:
        tasks = list((process / "task").iterdir())
    except OSError:
        return {}
    counts = {}
    for task in tasks:
        try:
            counts[task.name] = int((task / "schedstat").read_text().split()[0])
        except (OSError, IndexError):
            continue
    return counts


def _switches(process: Path) -> tuple[int, int]:
    counts = {"voluntary_ctxt_switches": 0, "nonvoluntary_ctxt_switches": 0}
    for status in process.glob("task/*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:
            continue
        for name, _, value in (line.partition(":") for line in lines):
            if name in counts:
                counts[name] += int(value)
    voluntary, involuntary = counts.values()
    return voluntary, involuntary
