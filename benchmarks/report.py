"""Tables of results."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from benchmarks.figures import Figures

OURS: Final = "ours"
PEER: Final = "peer"
BASELINE: Final = "baseline"


@dataclass(frozen=True, slots=True)
class Cycle:
    """One slice of each side, run one after the other, and the crypto floor (ms) before them."""

    floor_ms: float
    slices: dict[str, Figures]


@dataclass(frozen=True, slots=True)
class Level:
    """All cycles at this number of concurrent clients."""

    concurrency: int
    cycles: list[Cycle]

    def of(self, side: str) -> list[Figures]:
        """Return the slices of one side; [] if it was not run."""
        return [cycle.slices[side] for cycle in self.cycles if side in cycle.slices]


@dataclass(frozen=True, slots=True)
class Slice:
    """A load run against one side after it issued `issued` certificates."""

    side: str
    issued: int
    figures: Figures


Value = Callable[[Figures], float]


def levels_table(levels: Sequence[Level]) -> Table:
    table = Table(title="Whole systems in turns: median of the cycles [least - most]")
    table.add_column("")
    for level in levels:
        table.add_column(f"{level.concurrency} clients", justify="right")

    def add(label: str, cell: Callable[[Level], str], style: str | None = None) -> None:
        table.add_row(label, *map(cell, levels), style=style)

    sides = [s for s in (OURS, BASELINE, PEER) if any(level.of(s) for level in levels)]
    add("crypto floor F, ms", lambda level: _spread([c.floor_ms for c in level.cycles], 3))
    for side in sides:
        add(f"CPU ms / enrollment, {side}", lambda level, s=side: _each(level, s, _cpu, 2))
        add(f"  in F, {side}", lambda level, s=side: _in_floors(level, s))
    for other in sides[1:]:
        add(f"CPU, ours / {other}", lambda level, o=other: _ratios(level, o, _cpu))
        add(f"good/s, ours / {other}", lambda level, o=other: _ratios(level, o, _rate))
        add(f"p50, ours / {other}", lambda level, o=other: _ratios(level, o, _p50))
        add(f"p99, ours / {other}", lambda level, o=other: _ratios(level, o, _p99))
    for side in sides:
        add(f"good/s, {side}", lambda level, s=side: _each(level, s, _rate, 0))
        add(f"p50 / p99 ms, {side}", lambda level, s=side: _latency(level, s))
        add(f"failures, repeated serials, {side}", lambda level, s=side: _wrong(level, s))
    for side in sides[:2]:
        for process in dict.fromkeys(n for level in levels for f in level.of(side) for n in f.cpu):
            add(
                f"  {side} {process}", lambda level, s=side, p=process: _process(level, s, p), "dim"
            )
    table.caption = (
        "CPU: all processes, until idle again, per good answer; per process: ms (x F), then"
        " voluntary + involuntary context switches"
    )
    return table


def growth_table(slices: Sequence[Slice]) -> Table:
    table = Table(title="CPU per enrollment as certificates accumulate")
    headings = ("side", "issued before", "CPU ms", "x first slice", "good/s", "failures", "MiB")
    for heading in headings:
        table.add_column(heading, justify="right")
    first: dict[str, float] = {}
    for each in slices:
        spent = each.figures.cpu_ms
        ratio = spent / first.setdefault(each.side, spent)
        rate, failed = f"{each.figures.good_per_second:.0f}", str(each.figures.failed)
        memory = " ".join(f"{n} {mib:.0f}" for n, mib in sorted(each.figures.memory.items()))
        cells = str(each.issued), f"{spent:.3f}", f"{ratio:.2f}", rate, failed, memory
        table.add_row(each.side, *cells)
    return table


def history_line(commit: str, subject: str, levels: Sequence[Level]) -> str:
    """Return the row of history.md: CPU in F and against the other sides, at each level."""

    def cells(value: Callable[[Level], str]) -> str:
        return " / ".join(map(value, levels))

    floor = statistics.median(c.floor_ms for level in levels for c in level.cycles)
    return (
        f"| {commit} | {subject} | {floor:.2f} | {cells(lambda level: _in_floors(level, OURS))} "
        f"| {cells(lambda level: _ratios(level, BASELINE, _cpu))} "
        f"| {cells(lambda level: _ratios(level, PEER, _cpu))} "
        f"| {cells(lambda level: _ratios(level, PEER, _rate))} |"
    )


def _cpu(figures: Figures) -> float:
    return figures.cpu_ms


def _rate(figures: Figures) -> float:
    return figures.good_per_second


def _p50(figures: Figures) -> float:
    return figures.latency.p50


def _p99(figures: Figures) -> float:
    return figures.latency.p99


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} [{least:.{digits}f} - {most:.{digits}f}]"


def _each(level: Level, side: str, value: Value, digits: int) -> str:
    return _spread([value(figures) for figures in level.of(side)], digits)


def _in_floors(level: Level, side: str) -> str:
    pairs = [(c.slices[side], c.floor_ms) for c in level.cycles if side in c.slices]
    return _spread([figures.cpu_ms / floor for figures, floor in pairs], 2)


def _ratios(level: Level, other: str, value: Value) -> str:
    """Return ours divided by another side's, cycle by cycle."""
    pairs = [c.slices for c in level.cycles if c.slices.keys() >= {OURS, other}]
    return _spread([value(p[OURS]) / value(p[other]) for p in pairs if value(p[other])], 2)


def _latency(level: Level, side: str) -> str:
    found = level.of(side)
    if not found:
        return "-"
    p50, p99 = (statistics.median(map(value, found)) for value in (_p50, _p99))
    return f"{p50:.1f} / {p99:.1f}"


def _wrong(level: Level, side: str) -> str:
    found = level.of(side)
    return f"{sum(f.failed for f in found)}, {sum(f.repeated_serials for f in found)}"


def _process(level: Level, side: str, process: str) -> str:
    pairs = [(c.slices[side], c.floor_ms) for c in level.cycles if side in c.slices]
    if not pairs:
        return "-"
    spent = [figures.cpu.get(process, 0) / max(figures.good, 1) * 1e3 for figures, _ in pairs]
    floors = [ms / floor for ms, (_, floor) in zip(spent, pairs, strict=True)]
    switches = [
        [each / max(figures.good, 1) for each in figures.switches.get(process, (0, 0))]
        for figures, _ in pairs
    ]
    voluntary, involuntary = (statistics.median(column) for column in zip(*switches, strict=True))
    middle, in_floors = statistics.median(spent), statistics.median(floors)
    return f"{middle:.2f} ({in_floors:.2f} F) {voluntary:.1f} + {involuntary:.1f}"
