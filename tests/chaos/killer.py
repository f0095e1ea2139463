"""kill -9 of random processes of a system at random moments, by the pids of its run.json."""

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.system import System, wait_until

KINDS = ("nats", "gateway", "validator", "issuer", "audit")
_RESTART_SECONDS = 60.0
_EACH = 2

Victim = tuple[str, int]


def pids(run: dict[str, Any]) -> dict[Victim, int]:
    """Process ids by kind and number, the supervisor's not."""
    found = {kind: run["pids"][kind] for kind in KINDS}
    lists = {kind: [pid] if isinstance(pid, int) else pid for kind, pid in found.items()}
    return {(kind, i): pid for kind, each in lists.items() for i, pid in enumerate(each)}


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def wait_restarted(system: System, victim: Victim, killed: int) -> int:
    """The pid of what the supervisor has started in place of a killed process."""

    def fresh() -> int:
        pid = pids(system.run)[victim]
        return pid if pid != killed else 0

    return wait_until(fresh, _RESTART_SECONDS, f"restart of {victim[0]}-{victim[1]}")


@dataclass
class Killer:
    """Kills until told to stop; never the same process before it has come back."""

    system: System
    rng: random.Random
    gap: float
    kinds: Sequence[str] = KINDS
    kills: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    _killed: dict[Victim, int] = field(default_factory=dict)

    async def run(self, until: float) -> None:
        """Kill one after another until `until` (monotonic time), then see all of them back."""
        started = time.monotonic()
        for victim in self._victims():
            await asyncio.sleep(self.rng.uniform(0.25, 1.75) * self.gap)  # a random moment
            if time.monotonic() >= until:
                break
            pid = await self._kill(victim)
            moment = time.monotonic() - started
            self.story.append(f"{moment:.1f} s {victim[0]}-{victim[1]} ({pid})")
        for victim, pid in self._killed.items():
            await asyncio.to_thread(wait_restarted, self.system, victim, pid)

    def _victims(self) -> Iterator[Victim]:
        """Every kind twice in random order, then any."""
        first = [*self.kinds] * _EACH
        self.rng.shuffle(first)
        anything = (self.rng.choice(self.kinds) for _ in itertools.count())
        for kind in itertools.chain(first, anything):
            numbers = [number for name, number in pids(self.system.run) if name == kind]
            yield kind, self.rng.choice(numbers)

    async def _kill(self, victim: Victim) -> int:
        """Once it runs again; one that has ended by itself just now is looked up anew."""
        while True:
            last = self._killed.get(victim, 0)
            pid = await asyncio.to_thread(wait_restarted, self.system, victim, last)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                self.story.append(f"{victim[0]}-{victim[1]} ({pid}) had ended by itself")
                self._killed[victim] = pid
                continue
            self._killed[victim] = pid
            self.kills[victim[0]] += 1
            return pid
