"""Open-loop load: requests arrive at a fixed rate whatever the answers, as from a fleet.

Prints for each rate: enrollments per second that were answered in time (goodput), refusals, the
latency of 503, clients that gave up, how long a new client waits after the load, and how many cores
the generator, which runs on the same machine, and the system used.

    python -m benchmarks.overload --base 100 --factors 1 2 5 --seconds 20
"""

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.cpu import snapshot, spent
from benchmarks.discover import authorities, recipient
from benchmarks.enrollments import Recipe, key_pool, prebuild
from benchmarks.system import system
from benchmarks.target import Target

BODY_HEAD = (
    "POST {path}?operation=PKIOperation HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    "Content-Length: {length}\r\n\r\n"
)


RECOVERY_SECONDS = 60.0
SOURCES = itertools.cycle(range(2, 34))
PAUSE_SECONDS = 0.1


@dataclass
class Tally:
    """Results of the requests of one run; times in seconds."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    gave_up: int = 0
    failed: int = 0


async def one(url: str, body: bytes, patience: float, tally: Tally) -> None:
    """Run one client on its own connection, which gives up after `patience` seconds.

    Clients rotate over source addresses: while closed connections linger, one address has ports for
    only some 450 connections a second.
    """
    parts, started = urlsplit(url), time.monotonic()
    source = (f"127.0.0.{next(SOURCES)}", 0)
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(
                parts.hostname, parts.port, local_addr=source
            )
            try:
                head = BODY_HEAD.format(path=parts.path, length=len(body))
                writer.write(head.encode() + body)
                status = (await reader.read()).split(b" ", 2)[1:2]
            finally:
                writer.close()
    except TimeoutError:
        tally.gave_up += 1
    except OSError:
        tally.failed += 1
    else:
        took = time.monotonic() - started
        if status == [b"200"]:
            tally.answered.append(took)
        elif status == [b"503"]:
            tally.refused.append(took)
        else:
            tally.failed += 1


async def run(url: str, bodies: Sequence[bytes], rate: float, patience: float) -> Tally:
    """Send all bodies at `rate` requests a second."""
    tally, tasks, started = Tally(), [], time.monotonic()
    for number, body in enumerate(bodies):
        delay = started + number / rate - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.create_task(one(url, body, patience, tally)))
    await asyncio.gather(*tasks)
    return tally


async def recovery(url: str, body: bytes, longest: float = RECOVERY_SECONDS) -> float | None:
    """Return the seconds until a client that repeats its request is answered; None: never."""
    started = time.monotonic()
    while (left := started + longest - time.monotonic()) > 0:
        tally = Tally()
        await one(url, body, left, tally)
        if tally.answered:
            return time.monotonic() - started
        await asyncio.sleep(PAUSE_SECONDS)
    return None


def percentile(values: list[float], share: float) -> str:
    if not values:
        return "-"
    return f"{sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000:.0f} ms"


async def measure(target: Target, bodies: list[bytes], options: argparse.Namespace) -> None:
    url = target.url
    print(
        "rate/s  goodput/s  p95      503    p95 of 503  gave up  failed  good client after  "
        "generator  system"
    )
    for factor in options.factors:
        rate = options.base * factor
        count = int(rate * options.seconds)
        mine, bodies = bodies[:count], bodies[count:]
        last, bodies = bodies[0], bodies[1:]
        before, own = snapshot(target.pids), time.process_time()
        load = asyncio.create_task(run(url, mine, rate, options.patience))
        await asyncio.sleep(options.seconds)
        generator = (time.process_time() - own) / options.seconds
        ours = sum(spent(before, snapshot(target.pids)).values()) / options.seconds
        after = await recovery(url, last)
        tally = await load
        print(
            f"{rate:6.0f}  {len(tally.answered) / options.seconds:9.1f}  "
            f"{percentile(tally.answered, 0.95):7}  {len(tally.refused):5}  "
            f"{percentile(tally.refused, 0.95):10}  {tally.gave_up:7}  {tally.failed:6}  "
            f"{'never' if after is None else f'{after:.2f} s':17}  "
            f"{generator:9.2f}  {ours:6.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=float, default=100.0, help="enrollments/s at factor 1")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 2.0, 5.0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument(
        "--patience", type=float, default=5.0, help="seconds after which a client gives up"
    )
    parser.add_argument(
        "--pinned", action="store_true", help="run the system on the first core only"
    )
    options = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    if options.pinned and not others:
        parser.error("--pinned requires two cores")
    if options.pinned:
        os.sched_setaffinity(0, {first})  # child processes inherit it
    with system() as target:
        os.sched_setaffinity(0, {*others} if options.pinned else {first, *others})
        count = sum(int(options.base * f * options.seconds) + 1 for f in options.factors)
        trusted = asyncio.run(authorities(target.url, 0))
        recipe = Recipe(recipient(trusted), target.challenge)
        bodies = [each.message for each in prebuild(recipe, key_pool(50), 0, count)]
        asyncio.run(measure(target, bodies, options))


if __name__ == "__main__":
    main()
