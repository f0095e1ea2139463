"""Load generator and checker for any SCEP server: `python -m benchmarks.load --help`."""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks import cpu
from benchmarks.discover import authorities, recipient
from benchmarks.enrollments import CIPHERS, Recipe, key_pool, prebuild, read_keys, write_keys
from benchmarks.evaluate import evaluate
from benchmarks.figures import Answer, Figures, Latency, LoadResult, Plan
from benchmarks.fire import Gun, Volley, fire
from benchmarks.http1 import Endpoint


async def run_load(plan: Plan) -> LoadResult:
    """Build the requests, send them, check the answers; threads do all but the sending."""
    trusted = await authorities(plan.url, plan.wait)
    keys = plan.keys or await asyncio.to_thread(key_pool, plan.key_count)
    recipe = Recipe(recipient(trusted), plan.challenge, plan.cipher, plan.ber)
    total = plan.warmup + plan.n
    enrollments = await asyncio.to_thread(prebuild, recipe, keys, 0, total)
    messages = [each.message for each in enrollments]
    gun = Gun(Endpoint.of(plan.url), plan.concurrency, plan.timeout, plan.retries)
    warm = await fire(gun, messages[: plan.warmup])
    before = cpu.snapshot(plan.pids)
    volley = await fire(gun, messages[plan.warmup :])
    after = await asyncio.to_thread(cpu.settled, plan.pids, plan.settle)
    shots = [shot for shot in (*warm.shots, *volley.shots) if shot is not None]
    answers = await asyncio.to_thread(evaluate, enrollments, shots, trusted, lenient=plan.lenient)
    figures = _figures(plan, volley, answers, (before, after))
    return LoadResult(figures, answers[plan.warmup :])


def _figures(
    plan: Plan,
    volley: Volley,
    answers: Sequence[Answer],
    snapshots: tuple[cpu.Snapshot, cpu.Snapshot],
) -> Figures:
    timed = answers[plan.warmup :]
    good = sum(answer.certificate is not None for answer in timed)
    return Figures(
        url=plan.url,
        n=plan.n,
        concurrency=plan.concurrency,
        ber=plan.ber,
        cipher=plan.cipher,
        good=good,
        seconds=round(volley.seconds, 3),
        good_per_second=round(good / volley.seconds, 1),
        latency=Latency.of([answer.seconds for answer in timed]),
        cpu={name: round(seconds, 4) for name, seconds in cpu.spent(*snapshots).items()},
        switches=cpu.switched(*snapshots),
        memory=cpu.resident(plan.pids),
        generator_cpu=round(volley.generator_cpu, 4),
        failures=dict(Counter(answer.failure for answer in timed if answer.failure)),
        warmup_failures=sum(bool(answer.failure) for answer in answers[: plan.warmup]),
        repeated_serials=sum(answer.repeated_serial for answer in timed),
        retries=dict(volley.retries),
        connections=volley.connections,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--url", required=True, help="SCEP URL, http only")
    parser.add_argument("--challenge", default="")
    parser.add_argument("--n", type=int, default=2000, help="requests per level")
    parser.add_argument(
        "--concurrency", default="1,8,32", help="concurrent clients, one run for each"
    )
    parser.add_argument("--warmup", type=int, default=50, help="requests before the measurement")
    parser.add_argument("--cipher", choices=sorted(CIPHERS), default="aes128")
    parser.add_argument("--ber", action="store_true", help="indefinite lengths, segmented content")
    parser.add_argument("--lenient", action="store_true", help="accept DES and repeated serials")
    parser.add_argument("--keys", type=int, default=50, help="number of device keys")
    parser.add_argument("--key-file", type=Path, help="PEM file to keep the device keys in")
    parser.add_argument(
        "--timeout", type=float, default=60, help="timeout of one attempt, in seconds"
    )
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for the server")
    parser.add_argument("--pid", action="append", default=[], metavar="NAME=PID", type=_pid)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def _pid(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    return name, int(number)


def _line(figures: Figures) -> str:
    latency = figures.latency
    cpu_ms = {
        name: round(seconds / max(figures.good, 1) * 1e3, 3)
        for name, seconds in figures.cpu.items()
    }
    return (
        f"c={figures.concurrency} n={figures.n} good/s={figures.good_per_second} "
        f"p50={latency.p50} p90={latency.p90} p99={latency.p99} max={latency.max} ms "
        f"cpu ms/enrollment={round(figures.cpu_ms, 3)} {cpu_ms} "
        f"generator={round(figures.generator_cpu / figures.n * 1e3, 3)} "
        f"failures={figures.failures} repeated serials={figures.repeated_serials} "
        f"retries={figures.retries}"
    )


def _keys(count: int, path: Path | None) -> list[rsa.RSAPrivateKey]:
    """Return the device keys, from the file if it exists; generating them takes seconds."""
    if path is not None and path.exists():
        return read_keys(path.read_bytes())
    keys = key_pool(count)
    if path is not None:
        path.write_bytes(write_keys(keys))
    return keys


async def _levels(arguments: argparse.Namespace) -> list[Figures]:
    plan = Plan(
        url=arguments.url,
        challenge=arguments.challenge,
        n=arguments.n,
        concurrency=1,
        cipher=arguments.cipher,
        ber=arguments.ber,
        warmup=arguments.warmup,
        timeout=arguments.timeout,
        wait=arguments.wait,
        pids=tuple(arguments.pid),
        lenient=arguments.lenient,
        keys=_keys(arguments.keys, arguments.key_file),
    )
    found = []
    for level in map(int, arguments.concurrency.split(",")):
        result = await run_load(replace(plan, concurrency=level))
        print(_line(result.figures), flush=True)
        found.append(result.figures)
    return found


def main() -> int:
    arguments = _parser().parse_args()
    try:
        found = uvloop.run(_levels(arguments))
    except httpx.HTTPError as error:
        print(f"{arguments.url}: GetCACert failed: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.encode(found))
    return 1 if any(figures.failed for figures in found) else 0


if __name__ == "__main__":
    sys.exit(main())
