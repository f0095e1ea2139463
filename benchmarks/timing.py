"""Compare the CPU time of functions by running them in turns, in the same machine state."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Thread CPU time per call in milliseconds, one value per round."""

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        return min(self.rounds)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def ratio(self, base: "Timing") -> float:
        """Return the median of the ratios per round: what slows down a round slows down both."""
        pairs = zip(self.rounds, base.rounds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def interleave(
    subjects: Mapping[str, Callable[[], object]], rounds: int, batch: int
) -> dict[str, Timing]:
    """Time `batch` calls of each subject in `rounds` rounds, each starting with the next one."""
    names = list(subjects)
    spent: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            spent[name].append(_cpu_ms(subjects[name], batch))
    return {name: Timing(tuple(values)) for name, values in spent.items()}


def _cpu_ms(subject: Callable[[], object], batch: int) -> float:
    start = time.thread_time()
    for _ in range(batch):
        subject()
    return (time.thread_time() - start) / batch * 1e3
