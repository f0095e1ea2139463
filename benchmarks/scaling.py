"""CPU of an enrollment with more replicas of each service: python -m benchmarks.scaling.

The load goes to the first gateway; all validators and issuers share the work.
"""

import argparse
import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figures
from benchmarks.system import system
from benchmarks.target import Shape, load

_PROCESSES = ("nats", "gateway", "validator", "issuer", "audit")


def measure(replicas: int, shape: Shape, slices: int) -> list[Figures]:
    """Run the system with so many replicas of each service, and load it a few times."""
    options = [f"--{role}s={replicas}" for role in ("gateway", "validator", "issuer")]
    with system(options=options) as target:
        load(target, Shape(200, shape.concurrency))
        return [load(target, shape) for _ in range(slices)]


def table(found: dict[int, list[Figures]]) -> Table:
    """Return the medians of each number of replicas, and the CPU relative to the first."""
    shown = Table(title="Replicas of gateway, validator and issuer, each")
    for name in ("replicas", "ms CPU", "to the first", "good/s", *_PROCESSES):
        shown.add_column(name, justify="right")
    first = 0.0
    for replicas, figures in found.items():
        spent = statistics.median(each.cpu_ms for each in figures)
        first = first or spent
        rate = statistics.median(each.good_per_second for each in figures)
        parts = [
            statistics.median(each.cpu.get(name, 0.0) / max(each.good, 1) * 1e3 for each in figures)
            for name in _PROCESSES
        ]
        cells = [f"{spent:.2f}", f"{spent / first:.2f}", f"{rate:.0f}"]
        shown.add_row(str(replicas), *cells, *(f"{part:.2f}" for part in parts))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", default="1,2,4", help="numbers of replicas, comma-separated")
    parser.add_argument("-n", type=int, default=1000, help="enrollments in a slice")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--slices", type=int, default=3)
    options = parser.parse_args(arguments)
    shape = Shape(options.n, options.concurrency)
    numbers = [int(number) for number in options.replicas.split(",")]
    Console().print(table({n: measure(n, shape, options.slices) for n in numbers}))


if __name__ == "__main__":
    main()
