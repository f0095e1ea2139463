"""All ratios in one run: codec to crypto floor, system to peer. Run by `make bench`."""

import argparse
import sys
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import codec, peer, system
from benchmarks.codec import CodecFigures
from benchmarks.machine import Machine, machine
from benchmarks.report import Level, Slice, growth_table, levels_table
from benchmarks.target import ROOT, Shape, Target, load

_RESULTS = ROOT / "benchmarks" / "results"
_GROWTH_CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Results:
    """Results of a complete run, as written to the JSON file."""

    started: str
    machine: Machine
    codec: CodecFigures | None
    levels: list[Level]
    growth: list[Slice]
    left_out: list[str]


class Bench:
    """Runs the sides that are available, and prints each table when it is complete."""

    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self._arguments, self._console = arguments, console
        reasons = {"system": system.missing(), "peer": peer.missing()}
        self.left_out = [f"{side} skipped: {why}" for side, why in reasons.items() if why]
        self._ours, self._peer = not reasons["system"], not reasons["peer"]
        for line in self.left_out:
            console.print(line, style="bold red")

    def codec(self) -> CodecFigures:
        figures = codec.measure()
        self._console.print(codec.table(figures))
        return figures

    def levels(self) -> list[Level]:
        """Run each level on both sides in turn: one system for all, a fresh peer for each."""
        found = []
        with self._system() as ours:
            for concurrency in self._arguments.levels:
                shape = Shape(self._arguments.n, concurrency)
                self._console.print(f"{concurrency} clients ...", style="dim")
                mine = load(ours, replace(shape, ber=self._arguments.ber)) if ours else None
                with self._peer_server() as other:
                    theirs = load(other, shape) if other else None
                found.append(Level(concurrency, mine, theirs))
        self._console.print(levels_table(found))
        return found

    def growth(self) -> list[Slice]:
        """Run slices of load against servers that keep what they have issued."""
        found = []
        with ExitStack() as stack:
            sides = [stack.enter_context(self._system()), stack.enter_context(self._peer_server())]
            for number in range(self._arguments.slices):
                issued = number * self._arguments.n
                shape = Shape(self._arguments.n, _GROWTH_CLIENTS, warmup=0)
                self._console.print(f"after {issued} certificates ...", style="dim")
                found += [Slice(s.name, issued, load(s, shape)) for s in sides if s]
        self._console.print(growth_table(found))
        return found

    def _system(self) -> AbstractContextManager[Target | None]:
        return system.system() if self._ours else nullcontext()

    def _peer_server(self) -> AbstractContextManager[Target | None]:
        return peer.peer() if self._peer else nullcontext()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="requests per level or slice")
    parser.add_argument("--levels", type=_levels, default="1,8,32", help="concurrent clients")
    parser.add_argument("--ber", action="store_true", help="send BER requests to scepstream")
    parser.add_argument("--growth", action="store_true", help="cost as certificates accumulate")
    parser.add_argument("--slices", type=int, default=10, help="slices of --growth")
    parser.add_argument("--no-codec", action="store_true", help="skip floor and codec")
    parser.add_argument("--no-levels", action="store_true", help="skip system and peer")
    return parser


def _levels(text: str) -> list[int]:
    return [int(level) for level in text.split(",")]


def _write(results: Results) -> Path:
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{results.started}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2))
    return path


def main() -> int:
    """Return 1 if one of our own answers was wrong, else 0; ratios do not affect it."""
    arguments, console = _parser().parse_args(), Console()
    bench = Bench(arguments, console)
    results = Results(
        started=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        machine=machine(),
        codec=None if arguments.no_codec else bench.codec(),
        levels=[] if arguments.no_levels else bench.levels(),
        growth=bench.growth() if arguments.growth else [],
        left_out=bench.left_out,
    )
    console.print(f"written to {_write(results)}")
    ours = [each.ours for each in results.levels if each.ours]
    ours += [each.figures for each in results.growth if each.side == "scepstream"]
    return 1 if any(figures.failed for figures in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
