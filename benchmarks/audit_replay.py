"""Replay a large log and compare with the live model: `-m benchmarks.audit_replay --n 100000`.

Events of n enrollments are appended to a real nats-server while the audit service's code records
them. Then they are replayed into an empty database, and the two databases are compared by a digest
of each table.
"""

import argparse
import asyncio
import hashlib
import resource
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from sqlalchemy import Engine, select

from benchmarks.audit_feed import enrollment_events
from benchmarks.shared_state import Server
from services.audit.record.consumer import StreamRecorder
from services.audit.record.log_reader import last_sequence, read
from services.audit.record.write import position, store
from services.audit.store.engine import migrate, open_engine
from services.audit.store.tables import metadata
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision
from shared.bus.servers import Servers
from shared.log.envelope import encode
from shared.log.roles import Role
from shared.log.streams import CERTS

_STREAMS = ("ENROLL_0", CERTS)
_AT_ONCE = 256
_BATCH = 1024
_WRITERS = {"request": Role.GATEWAY, "verdict": Role.VALIDATOR}


async def append_all(server: Server, count: int) -> None:
    """Append the events of many enrollments concurrently, each one's in order, by their roles."""
    roles = (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER)
    servers = Servers.of(server.url)
    buses = {r: await JetStreamBus.connect(servers, server.seeds[r], r.value) for r in roles}

    async def enroll(number: int) -> None:
        for _, subject, event in enrollment_events(number):
            bus = buses[_WRITERS.get(subject.rpartition(".")[2], Role.ISSUER)]
            await bus.append(subject, encode(event))

    for first in range(0, count, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, count))
        await asyncio.gather(*(enroll(number) for number in numbers))
    for bus in buses.values():
        await bus.close()


async def live(bus: JetStreamBus, engine: Engine, server: Server, count: int) -> float:
    """Record events while they are appended; return the seconds until the database has all."""
    recorders = [StreamRecorder(bus, engine, stream, _BATCH) for stream in _STREAMS]
    for recorder in recorders:
        await recorder.start()
    started = time.monotonic()
    await append_all(server, count)
    for stream in _STREAMS:
        last = await last_sequence(bus, stream)
        while await asyncio.to_thread(position, engine, stream) < last:
            await asyncio.sleep(0.1)
    seconds = time.monotonic() - started
    for recorder in recorders:
        await recorder.stop()
    return seconds


async def replay(bus: JetStreamBus, engine: Engine) -> int:
    """Replay as `scepstream audit replay` does; return the number of events."""
    found = 0
    for stream in _STREAMS:
        last = await last_sequence(bus, stream)
        async for batch in read(bus, stream, 1, last):
            found += await asyncio.to_thread(store, engine, stream, batch)
    return found


def digests(engine: Engine) -> dict[str, str]:
    """Return a digest of each table's rows, ordered by primary key."""
    found = {}
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            digest, rows = hashlib.sha256(), 0
            query = select(table).order_by(*table.primary_key)
            for row in connection.execution_options(yield_per=1000).execute(query):
                digest.update(repr(tuple(row)).encode())
                rows += 1
            found[table.name] = f"{rows} {digest.hexdigest()[:16]}"
    return found


async def measure(folder: Path, count: int, console: Console) -> None:
    server = Server(folder)
    engines = [open_engine(f"sqlite:///{folder / name}.db") for name in ("live", "replayed")]
    for engine in engines:
        migrate(engine)
    try:
        await provision(Servers.of(server.url), server.seeds[Role.PROVISIONER], ["0"], 1)
        bus = await JetStreamBus.connect(Servers.of(server.url), server.seeds[Role.AUDIT], "audit")
        seconds = await live(bus, engines[0], server, count)
        console.print(f"live: {count} enrollments appended and recorded in {seconds:.0f} s")
        cpu, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        found = await replay(bus, engines[1])
        seconds = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
        spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
        console.print(
            f"replay: {found} events in {seconds:.0f} s, {found / seconds:.0f} events/s,"
            f" {spent:.0f} s of CPU"
        )
        await bus.close()
        first, second = (digests(engine) for engine in engines)
        for name, digest in first.items():
            console.print(f"{'equal' if second[name] == digest else 'DIFFERS'}: {name} {digest}")
    finally:
        server.process.kill()
        server.process.wait()
        for engine in engines:
            engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=100_000, help="enrollments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scepstream-replay-") as folder:
        uvloop.run(measure(Path(folder), arguments.n, Console(highlight=False)))


if __name__ == "__main__":
    main()
