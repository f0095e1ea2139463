"""Size and cost of CRLs with many entries: `python -m benchmarks.crls --n 100000`.

It uses a real nats-server, and the code and accounts of an issuer and a gateway. The revocations
are written to the log first, so that the first CRLs are built from all of them.
"""

import argparse
import asyncio
import hashlib
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from rich.console import Console
from rich.table import Table

from benchmarks.shared_state import server
from cli.up.authority import make_ca
from services.issuer.ceilings import Ceilings
from services.issuer.connectors.local import LocalCa, LocalConnector
from services.issuer.crl import CrlHead, read_entries
from services.issuer.crl_keeper import CrlKeeper
from services.issuer.settings import Settings
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision
from shared.bus.servers import Servers
from shared.ca.crls import newest_head, read_crl
from shared.ca.partitions import NO_PARTITIONS, Partition, Partitioning
from shared.log.envelope import EventSigner, Trusted, key_id, sign
from shared.log.events.certificates import CertificateStatus, CertificateStatusChanged
from shared.log.events.commands import RevocationReason
from shared.log.roles import Role
from shared.log.subjects import certificate_status
from shared.runtime.live import Live
from shared.x509.key_ids import spki_sha256

_ISSUER: Final = "local"
_AT_ONCE: Final = 256
_SAMPLE: Final = 10
_YEAR: Final = 365 * 86400


@dataclass(frozen=True, slots=True)
class Row:
    """Costs with this number of partitions (0: none), in seconds and bytes."""

    partitions: int
    complete: int
    partition: int
    build: float
    publish: float
    publish_cpu: float
    appended: int
    restart: float
    log: float
    gateway: int


def make_local_ca(partitioning: Partitioning) -> LocalCa:
    """Return an RSA CA with these partitions."""
    made = make_ca("rsa:2048", time.time())
    der = made.certificate.public_bytes(Encoding.DER)
    key = made.certificate.public_key()
    pin = spki_sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    end = int(made.certificate.not_valid_after_utc.timestamp())
    ceilings = Ceilings(pin, 0, end, _YEAR, 3600, frozenset(), partitioning=partitioning)
    return LocalCa(made.certificate, made.key, (der,), b"s" * 32, ceilings)


def changes(first: int, count: int, pin: str) -> Iterator[tuple[str, CertificateStatusChanged]]:
    """Yield (subject, event) of revocations, each of another certificate."""
    now = int(time.time())
    for number in range(first, first + count):
        digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
        serial = "40" + digest[:30]
        event = CertificateStatusChanged(
            request_sha256=digest, serial=serial, ca_spki_sha256=pin,
            status=CertificateStatus.REVOKED, reason=RevocationReason.SUPERSEDED,
            revoked_at=now - number, operator="benchmark", command=number,
            not_after=now + _YEAR, spki_sha256=digest,
        )  # fmt: skip
        yield certificate_status(_ISSUER, serial, 0), event


@dataclass
class Bench:
    """An issuer and its log, on a nats-server of its own."""

    bus: JetStreamBus
    ca: LocalCa
    signer: EventSigner
    servers: Servers
    gateway_seed: str
    revoked: int = 0

    @property
    def trusted(self) -> Trusted:
        return {self.signer.id: self.signer.key.public_key()}

    @property
    def connector(self) -> LocalConnector:
        return LocalConnector(self.ca)

    def keeper(self) -> CrlKeeper:
        """Return a keeper as after a start of the issuer."""
        settings = Settings(
            self.servers, "", (), self.signer, {}, self.trusted, {}, {},
            {_ISSUER: self.connector}, 64,
        )  # fmt: skip
        return CrlKeeper(self.bus, Live(settings), time.time)

    async def revoke(self, count: int) -> None:
        """Record revocations, several at a time."""
        events = changes(self.revoked, count, self.ca.pin)

        async def work() -> None:
            for subject, event in events:
                await self.bus.append(subject, sign(event, subject, self.signer))

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        self.revoked += count

    async def timed(self, keeper: CrlKeeper) -> float:
        started = time.perf_counter()
        await keeper.publish(_ISSUER, self.connector, self.ca)
        return time.perf_counter() - started

    async def measure(self, count: int) -> Row:
        await self.revoke(count)
        keeper, samples, cpu = self.keeper(), [], []
        log = await self.timed(keeper)
        complete, partition = await self.size(None), 0
        partitions = self.ca.ceilings.partitioning.partitions
        if partitions:
            partition = await self.size(partitions[0])
        for _ in range(_SAMPLE):
            await self.revoke(1)
            before = time.process_time()
            samples.append(await self.timed(keeper))
            cpu.append(time.process_time() - before)
        await self.revoke(1)
        restart = await self.timed(self.keeper())
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            public = self.signer.key.public_key().public_bytes_raw()
            arguments = (self.servers, self.gateway_seed, self.ca.chain[0], public, partitions)
            gateway = pool.submit(held, *arguments).result()
        return Row(
            len(partitions), complete, partition, await self.build(), statistics.median(samples),
            statistics.median(cpu), complete + partition, restart, log, gateway,
        )  # fmt: skip

    async def newest(self, partition: Partition | None) -> bytes:
        return await newest_crl(self.bus, self.ca.chain[0], self.trusted, partition)

    async def size(self, partition: Partition | None) -> int:
        return len(await self.newest(partition))

    async def build(self) -> float:
        """Return the seconds of CPU to encode and sign the complete CRL."""
        entries = read_entries(await self.newest(None))
        times = []
        for number in range(_SAMPLE):
            started = time.process_time()
            self.ca.sign_crl(CrlHead(number, 1, 2), entries)
            times.append(time.process_time() - started)
        return statistics.median(times)


async def newest_crl(
    bus: JetStreamBus, ca: bytes, trusted: Trusted, partition: Partition | None
) -> bytes:
    """Return the newest CRL as DER, read as gateways and issuers do."""
    head = await newest_head(bus, _ISSUER, ca, trusted, partition)
    assert head is not None
    return (await read_crl(bus, head, ca)).der


def held(
    servers: Servers, seed: str, ca: bytes, public: bytes, partitions: tuple[Partition, ...]
) -> int:
    """Return by how many bytes a process grows that reads all CRLs as a gateway does."""

    async def read() -> int:
        key = Ed25519PublicKey.from_public_bytes(public)
        bus = await JetStreamBus.connect(servers, seed, "g", timeout=30.0)
        before = resident()
        crls = [await newest_crl(bus, ca, {key_id(key): key}, p) for p in (None, *partitions)]
        grown = resident() - before
        assert all(crls)
        await bus.close()
        return grown

    return asyncio.run(read())


def resident() -> int:
    """Return this process's resident memory in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


async def run(count: int, partitioning: Partitioning) -> Row:
    with server() as running:
        servers = Servers.of(running.url)
        await provision(servers, running.seeds[Role.PROVISIONER], ["0"], 1)
        bus = await JetStreamBus.connect(servers, running.seeds[Role.ISSUER], "i", timeout=30.0)
        signer = EventSigner.of(Ed25519PrivateKey.generate())
        ca = make_local_ca(partitioning)
        bench = Bench(bus, ca, signer, servers, running.seeds[Role.GATEWAY])
        row = await bench.measure(count)
        await bus.close()
        return row


def table(rows: list[Row]) -> Table:
    found = Table(
        "n", "all MB", "one MB", "sign CPU ms",
        "publish ms", "CPU ms", "written MB", "after start ms",
        "from log s", "gateway MB",
    )  # fmt: skip
    for row in rows:
        found.add_row(
            str(row.partitions or "none"), f"{row.complete / 1e6:.2f}",
            f"{row.partition / 1e6:.2f}", f"{row.build * 1000:.0f}", f"{row.publish * 1000:.0f}",
            f"{row.publish_cpu * 1000:.0f}",
            f"{row.appended / 1e6:.2f}", f"{row.restart * 1000:.0f}", f"{row.log:.0f}",
            f"{row.gateway / 1e6:.1f}",
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="revoked certificates")
    parser.add_argument("--partitions", type=int, nargs="*", default=[0, 8])
    options = parser.parse_args()
    console, rows = Console(), []
    for count in options.partitions:
        some = Partitioning((count,), ("http://crl.example/crl/local",))
        rows.append(uvloop.run(run(options.n, some if count else NO_PARTITIONS)))
    console.print(table(rows))


if __name__ == "__main__":
    main()
