"""Memory and latency of replay records and device windows as their number grows.

`python -m benchmarks.shared_state --n 1000000` uses a real nats-server, and the code and account
of a validator, signatures included.
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import nkeys
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from benchmarks.cpu import snapshot, spent
from cli.up.ports import nats_port
from services.validator.challenges.records import Records
from services.validator.challenges.verifier import ChallengeRequest
from services.validator.facts import DecryptedRequest
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision, server_config
from shared.bus.servers import Servers
from shared.bus.users import User, public_key_of
from shared.log.envelope import EventSigner
from shared.log.events.enrollment import Facts
from shared.log.roles import Role
from shared.log.subjects import EnrollmentId, token
from shared.x509.csr import CertificationRequest

_CONCURRENCY = 64
_SAMPLE = 2000
_HOUR = 3600
_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Row:
    """Costs with this number of entries, in seconds and bytes."""

    entries: int
    memory: int
    disk: int
    claim: list[float]
    place: list[float]
    claims_per_second: float
    server_cpu: float


class Server:
    """A separate nats-server, configured as by `up`."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, nats_port(0)
        seeds = {r: nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) for r in Role}
        self.seeds = {role: bytes(seed).decode() for role, seed in seeds.items()}
        users = [User(role, public_key_of(seed)) for role, seed in self.seeds.items()]
        listen = f"127.0.0.1:{self.port}"
        text = server_config(users, ["0"], directory / "store", listen, "100ms")
        (directory / "nats.conf").write_text(text)
        self.process = self._start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def _start(self) -> subprocess.Popen[bytes]:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program is not None
        with (self.directory / "nats.log").open("ab") as log:
            command = [program, "-c", str(self.directory / "nats.conf")]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def restart(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def disk(self) -> int:
        return sum(f.stat().st_size for f in self.directory.rglob("*") if f.is_file())


@contextmanager
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        found = Server(Path(folder))
        try:
            yield found
        finally:
            found.process.kill()
            found.process.wait()


def asked(number: int, now: int) -> ChallengeRequest:
    """Return a request as the verifier sees it, distinct for each number."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    facts = Facts(
        subject="CN=device", sans=(), key_type="rsa", key_bits=2048, spki_sha256=digest,
        csr_sha256=digest, challenge="signed",
    )  # fmt: skip
    csr = CertificationRequest(b"", b"", b"", b"", b"", b"")
    enrollment = EnrollmentId("0", "corp", token(digest.encode()), token(b"csr"), 0)
    return ChallengeRequest(enrollment, digest, "t", DecryptedRequest(csr, facts), now)


class Load:
    """Claims of challenges and places in device windows; `fill` runs `_CONCURRENCY` at a time."""

    def __init__(self, records: Records) -> None:
        self.records, self.now, self.number = records, int(time.time()), 0

    async def claim(self, number: int) -> None:
        digest = token(b"nonce", str(number).encode())
        until = self.now + 24 * _HOUR
        await self.records.claim(asked(number, self.now), "signed", digest, until)

    async def place(self, number: int) -> None:
        device = token(b"device", str(number).encode())
        await self.records.take_place(asked(number, self.now), device, _LIMIT)

    async def fill(self, count: int) -> float:
        """Add `count` new challenges of new devices; return the seconds."""
        numbers, started = iter(range(self.number, self.number + count)), time.monotonic()

        async def work() -> None:
            for number in numbers:
                await self.claim(number)
                await self.place(number)

        await asyncio.gather(*(work() for _ in range(_CONCURRENCY)))
        self.number += count
        return time.monotonic() - started

    async def sample(self, step: Callable[[int], Awaitable[None]]) -> list[float]:
        """Run `_SAMPLE` steps one after another; return the seconds of each."""
        found = []
        for number in range(self.number, self.number + _SAMPLE):
            started = time.perf_counter()
            await step(number)
            found.append(time.perf_counter() - started)
        return found


async def measure(running: Server, steps: list[int], console: Console) -> list[Row]:
    await provision(Servers.of(running.url), running.seeds[Role.PROVISIONER], ["0"], 1)
    bus = await JetStreamBus.connect(
        Servers.of(running.url), running.seeds[Role.VALIDATOR], "v", timeout=30.0
    )
    signer = EventSigner.of(Ed25519PrivateKey.generate())
    load = Load(Records(bus, signer, {signer.id: signer.key.public_key()}, {}))
    rows = []
    for target in steps:
        console.print(f"{target} entries ...", style="dim")
        count = target - load.number
        before = snapshot([("nats", running.process.pid)])
        seconds = await load.fill(count)
        cpu = spent(before, snapshot([("nats", running.process.pid)]))["nats"]
        claims = await load.sample(load.claim)
        places = await load.sample(load.place)
        load.number += _SAMPLE
        row = Row(target, running.memory(), running.disk(), claims, places, count / seconds, cpu)
        rows.append(replace(row, server_cpu=cpu / count))
    await bus.close()
    running.restart()
    started = time.monotonic()
    bus = await JetStreamBus.connect(
        Servers.of(running.url), running.seeds[Role.VALIDATOR], "v", timeout=30.0
    )
    await Load(replace(load.records, bus=bus)).claim(0)
    restarted = time.monotonic() - started
    console.print(f"after kill -9 the first claim was answered within {restarted:.1f} s")
    console.print(f"memory after the restart {running.memory() / 2**20:.0f} MiB")
    await bus.close()
    return rows


def table(rows: list[Row]) -> Table:
    found = Table(
        "entries each", "nats MiB", "disk MiB", "claim ms p50, p99", "place ms p50, p99",
        "pairs/s", "nats CPU ms a pair",
    )  # fmt: skip
    for row in rows:
        found.add_row(
            str(row.entries), f"{row.memory / 2**20:.0f}", f"{row.disk / 2**20:.0f}",
            _quantiles(row.claim), _quantiles(row.place), f"{row.claims_per_second:.0f}",
            f"{row.server_cpu * 1000:.2f}",
        )  # fmt: skip
    return found


def _quantiles(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"{cuts[49] * 1000:.2f}, {cuts[98] * 1000:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=100_000, help="entries in each stream")
    wanted = parser.parse_args().n
    steps = [step for step in (1000, 10_000, 100_000) if step < wanted] + [wanted]
    console = Console()
    with server() as running:
        uvloop.install()
        console.print(table(asyncio.run(measure(running, steps, console))))


if __name__ == "__main__":
    main()
