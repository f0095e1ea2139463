"""Ratios are taken cycle by cycle, so that a slow minute of the machine does not change them."""

import io

import pytest
from rich.console import Console

from benchmarks.figures import Figures, Latency
from benchmarks.report import BASELINE, OURS, PEER, Cycle, Level, history_line, levels_table


def figures(ms: float, rate: float) -> Figures:
    return Figures(
        url="", n=10, concurrency=8, ber=False, cipher="aes128", good=10, seconds=1.0,
        good_per_second=rate, latency=Latency(ms, ms, 2 * ms, 3 * ms),
        cpu={"gateway": ms / 100}, switches={"gateway": (20, 10)}, memory={"gateway": 64.0},
        generator_cpu=0.0, failures={}, warmup_failures=0, repeated_serials=0, retries={},
        connections=8,
    )  # fmt: skip


# The machine is three times as slow in the second cycle.
CYCLES = [
    Cycle(k, {OURS: figures(8 * k, 90 / k), PEER: figures(4 * k, 180 / k)}) for k in (1.0, 3.0)
]


def shown(*levels: Level) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(levels_table(levels))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_slow_cycle_leaves_the_ratios_as_they_are() -> None:
    text = shown(Level(8, CYCLES))

    for label, ratio in (("CPU, ours / peer", "2.00"), ("good/s, ours / peer", "0.50")):
        (line,) = [each for each in text.splitlines() if label in each]
        assert f"{ratio} [{ratio} - {ratio}]" in line
    assert "8.00 [8.00 - 8.00]" in text  # in F
    assert "2.0 + 1.0" in text  # context switches


@pytest.mark.parametrize("side", [OURS, BASELINE, PEER])
def test_a_side_that_cannot_be_run_is_left_out(side: str) -> None:
    cycles = [Cycle(c.floor_ms, {s: f for s, f in c.slices.items() if s != side}) for c in CYCLES]

    assert f", {side} " not in shown(Level(1, cycles))


def test_history_has_a_cell_for_each_column() -> None:
    line = history_line("abc", "Less work", [Level(8, CYCLES)])

    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "abc", "Less work", "2.00", "8.00 [8.00 - 8.00]", "-", "2.00 [2.00 - 2.00]",
        "0.50 [0.50 - 0.50]",
    ]  # fmt: skip
