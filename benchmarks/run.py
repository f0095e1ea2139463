"""All ratios in one run: codec to crypto floor, system to peer and to another commit. `make bench`.

The sides take turns in short slices (A B A B), and the crypto floor is measured before each cycle:
what slows the machine down for a while slows all of them down.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import baseline, codec, flames, peer, system, traffic
from benchmarks.codec import CodecFigures
from benchmarks.floor import floor
from benchmarks.machine import Machine, machine
from benchmarks.report import (
    BASELINE,
    OURS,
    PEER,
    Cycle,
    Level,
    Slice,
    growth_table,
    history_line,
    levels_table,
)
from benchmarks.sample import dissect, new_sample
from benchmarks.target import ROOT, Shape, Target, load
from benchmarks.timing import interleave

_RESULTS = ROOT / "benchmarks" / "results"
_HISTORY = ROOT / "benchmarks" / "history.md"
_GROWTH_CLIENTS = 8
_FLOOR_ROUNDS = 20
_FLOOR_BATCH = 10


@dataclass(frozen=True, slots=True)
class Results:
    """One run of everything, as it goes to the JSON file."""

    started: str
    machine: Machine
    codec: CodecFigures | None
    levels: list[Level]
    traffic: traffic.Traffic | None
    growth: list[Slice]
    left_out: list[str]


class Bench:
    """The sides that can be run, and the tables as they come in."""

    def __init__(self, arguments: argparse.Namespace, console: Console) -> None:
        self._arguments, self._console = arguments, console
        reasons = {"system": system.missing(), "peer": peer.missing()}
        self.left_out = [f"{side} left out: {why}" for side, why in reasons.items() if why]
        self._ours, self._peer = not reasons["system"], not reasons["peer"]
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._keys = Path(self._folder.name) / "keys.pem"
        sample = new_sample()
        self._floor = floor(sample.server, dissect(sample))
        self.traffic: traffic.Traffic | None = None
        for line in self.left_out:
            console.print(line, style="bold red")

    def codec(self) -> CodecFigures:
        figures = codec.measure()
        self._console.print(codec.table(figures))
        return figures

    def levels(self) -> list[Level]:
        """Run all sides in turns at each level; then the slices that are not timed."""
        found = []
        with ExitStack() as stack:
            sides = self._sides(stack)
            for concurrency in self._arguments.levels:
                self._console.print(f"{concurrency} clients ...", style="dim")
                # A fresh peer for each level: its cost grows with what it has issued.
                with self._peer_server() as other:
                    at_level = sides | ({PEER: other} if other else {})
                    found.append(self._level(concurrency, at_level))
            self._console.print(levels_table(found))
            if OURS in sides:
                self._untimed(sides[OURS])
        return found

    def _sides(self, stack: ExitStack) -> dict[str, Target]:
        sides: dict[str, Target] = {}
        if self._ours:
            sides[OURS] = stack.enter_context(system.system())
        if self._ours and self._arguments.baseline:
            tree = stack.enter_context(baseline.checkout(self._arguments.baseline))
            sides[BASELINE] = stack.enter_context(system.system(tree=tree))
        return sides

    def _level(self, concurrency: int, sides: dict[str, Target]) -> Level:
        cycles = self._arguments.cycles
        shape = Shape(
            max(self._arguments.n // cycles, 1), concurrency, warmup=20, key_file=self._keys
        )
        level = Level(concurrency, [])
        for number in range(cycles):
            timed = interleave({"floor": self._floor}, _FLOOR_ROUNDS, _FLOOR_BATCH)["floor"]
            order = list(sides)[:: 1 if number % 2 else -1]
            ber = self._arguments.ber
            slices = {
                side: load(sides[side], replace(shape, ber=ber and side != PEER)) for side in order
            }
            level.cycles.append(Cycle(timed.median, slices))
        return level

    def _untimed(self, ours: Target) -> None:
        if self._arguments.profile:
            shape = Shape(self._arguments.n, max(self._arguments.levels), key_file=self._keys)
            for path in flames.profile(ours, shape, _RESULTS / "flames"):
                self._console.print(f"flame graph: {path}")
        self.traffic = traffic.measure(ours)
        self._console.print(traffic.table(self.traffic))

    def growth(self) -> list[Slice]:
        """Run slices of load against servers that keep what they have issued."""
        found = []
        kept = Path(self._folder.name)
        with ExitStack() as stack:
            sides = [stack.enter_context(self._system(kept))]
            if not self._arguments.no_peer:
                sides.append(stack.enter_context(self._peer_server()))
            for number in range(self._arguments.slices):
                issued = number * self._arguments.n
                shape = Shape(self._arguments.n, _GROWTH_CLIENTS, warmup=0, key_file=self._keys)
                self._console.print(f"after {issued} certificates ...", style="dim")
                found += [Slice(s.name, issued, load(s, shape)) for s in sides if s]
        self._console.print(growth_table(found))
        if self._ours:
            begun = time.monotonic()
            with system.system(kept=kept):
                taken = time.monotonic() - begun
            self._console.print(f"started again with all of it in {taken:.1f} s")
        return found

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Remove the device keys at the end."""
        with self._folder:
            yield

    def _system(self, kept: Path) -> AbstractContextManager[Target | None]:
        return system.system(kept=kept) if self._ours else nullcontext()

    def _peer_server(self) -> AbstractContextManager[Target | None]:
        return peer.peer() if self._peer else nullcontext()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--n", type=int, default=1200, help="requests per level and side, or slice")
    parser.add_argument("--levels", type=_levels, default="1,8,32", help="concurrent clients")
    parser.add_argument("--cycles", type=int, default=4, help="slices of each side and level")
    parser.add_argument("--baseline", metavar="COMMIT", help="measure another commit beside this")
    parser.add_argument("--profile", action="store_true", help="leave flame graphs (needs py-spy)")
    parser.add_argument("--record", metavar="TEXT", help="append the result to history.md")
    parser.add_argument("--ber", action="store_true", help="BER requests to our side")
    parser.add_argument("--growth", action="store_true", help="cost as certificates accumulate")
    parser.add_argument("--slices", type=int, default=10, help="slices of --growth")
    parser.add_argument("--no-peer", action="store_true", help="--growth of our side only")
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
    parser, console = _parser(), Console()
    arguments = parser.parse_args()
    if arguments.profile and not flames.PY_SPY.exists():
        parser.error("--profile: py-spy is not installed")
    bench = Bench(arguments, console)
    with bench.closing():
        results = Results(
            started=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            machine=machine(),
            codec=None if arguments.no_codec else bench.codec(),
            levels=[] if arguments.no_levels else bench.levels(),
            traffic=bench.traffic,
            growth=bench.growth() if arguments.growth else [],
            left_out=bench.left_out,
        )
    console.print(f"written to {_write(results)}")
    if arguments.record and results.levels:
        with _HISTORY.open("a") as file:
            line = history_line(baseline.current(), arguments.record, results.levels)
            print(line, file=file)
    ours = [figures for level in results.levels for figures in level.of(OURS)]
    ours += [each.figures for each in results.growth if each.side == "scepstream"]
    return 1 if any(figures.failed for figures in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
