"""Tables of results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.table import Table

from benchmarks.figures import Figures


@dataclass(frozen=True, slots=True)
class Level:
    """Both sides under the same load; None: the side could not be run."""

    concurrency: int
    ours: Figures | None
    peer: Figures | None


@dataclass(frozen=True, slots=True)
class Slice:
    """A load run against one side after it issued `issued` certificates."""

    side: str
    issued: int
    figures: Figures


def levels_table(levels: Sequence[Level]) -> Table:
    table = Table(title="Whole system and peer, level by level", caption=_CAPTION)
    table.add_column("")
    for level in levels:
        table.add_column(f"{level.concurrency} clients", justify="right")
    for label, cell in _ROWS.items():
        table.add_row(label, *(cell(level) for level in levels))
    for process in dict.fromkeys(name for level in levels for name in _processes(level)):
        row = (_of(level.ours, partial(_process_ms, process)) for level in levels)
        table.add_row(f"  {process}", *row, style="dim")
    return table


def growth_table(slices: Sequence[Slice]) -> Table:
    table = Table(title="CPU per enrollment as certificates accumulate")
    for heading in ("side", "issued before", "CPU ms", "x first slice", "good/s", "failures"):
        table.add_column(heading, justify="right")
    first: dict[str, float] = {}
    for each in slices:
        spent = each.figures.cpu_ms
        base = first.setdefault(each.side, spent)
        ratio = _ratio(spent, base)
        rate, failed = f"{each.figures.good_per_second:.0f}", str(each.figures.failed)
        table.add_row(each.side, str(each.issued), f"{spent:.3f}", ratio, rate, failed)
    return table


def _of(figures: Figures | None, text: Callable[[Figures], str]) -> str:
    return "-" if figures is None else text(figures)


def _ratio(above: float, below: float) -> str:
    return f"{above / below:.2f}" if below else "-"


def _both(level: Level, value: Callable[[Figures], float], *, inverse: bool = False) -> str:
    """Return the ratio of ours to the peer's, or `inverse` if less is better."""
    if level.ours is None or level.peer is None:
        return "-"
    ours, theirs = value(level.ours), value(level.peer)
    return _ratio(theirs, ours) if inverse else _ratio(ours, theirs)


def _processes(level: Level) -> tuple[str, ...]:
    return () if level.ours is None else tuple(level.ours.cpu)


def _process_ms(process: str, figures: Figures) -> str:
    return f"{figures.cpu.get(process, 0.0) / max(figures.good, 1) * 1e3:.3f}"


def _latency(figures: Figures) -> str:
    return f"{figures.latency.p50:.1f} / {figures.latency.p99:.1f}"


def _failures(figures: Figures) -> str:
    retries = sum(figures.retries.values())
    return f"{sum(figures.failures.values())}" + (f" (+{retries} retries)" if retries else "")


def _rate(figures: Figures) -> str:
    return f"{figures.good_per_second:.1f}"


def _cpu(figures: Figures) -> str:
    return f"{figures.cpu_ms:.3f}"


_ROWS: dict[str, Callable[[Level], str]] = {
    "good answers/s, ours": lambda level: _of(level.ours, _rate),
    "good answers/s, peer": lambda level: _of(level.peer, _rate),
    "ratio (ours / peer)": lambda level: _both(level, lambda f: f.good_per_second),
    "p50 / p99 ms, ours": lambda level: _of(level.ours, _latency),
    "p50 / p99 ms, peer": lambda level: _of(level.peer, _latency),
    "failures, ours": lambda level: _of(level.ours, _failures),
    "failures, peer": lambda level: _of(level.peer, _failures),
    "repeated serials, peer": lambda level: _of(level.peer, lambda f: str(f.repeated_serials)),
    "CPU ms / enrollment, peer": lambda level: _of(level.peer, _cpu),
    "ratio (peer / ours)": lambda level: _both(level, lambda f: f.cpu_ms, inverse=True),
    "CPU ms / enrollment, ours": lambda level: _of(level.ours, _cpu),
}
_CAPTION = "CPU: all processes, until idle again, per good answer; peer: fresh depot each level"
