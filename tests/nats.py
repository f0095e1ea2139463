"""A real nats-server for a test: its own directory, keys, ports and pid, on 127.0.0.1."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nkeys

from cli.up.ports import nats_port
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision, server_config
from shared.bus.topology import Role
from tests.system import wait_until


def _seed() -> str:
    return bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)).decode()


@dataclass
class NatsServer:
    """A provisioned server that can be killed and started again."""

    directory: Path
    port: int = field(default_factory=lambda: nats_port(0))
    seeds: dict[Role, str] = field(default_factory=lambda: {role: _seed() for role in Role})
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        public = {
            role: nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
            for role, seed in self.seeds.items()
        }
        config = self.directory / "nats-server.conf"
        store = self.directory / "jetstream"
        listen = f"127.0.0.1:{self.port}"
        config.write_text(server_config(public, ["0"], store, listen, "100ms"))
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program is not None
        log = (self.directory / "nats.log").open("ab")
        self.process = subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
        log.close()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def provision(self) -> None:
        await provision(self.url, self.seeds[Role.PROVISIONER], ["0"], 1)

    async def connect(self, role: Role, timeout: float = 5.0) -> JetStreamBus:
        return await JetStreamBus.connect(self.url, self.seeds[role], role.value, timeout)


@contextmanager
def nats_server(directory: Path) -> Iterator[NatsServer]:
    """A running, not yet provisioned server."""
    server = NatsServer(directory)
    server.start()
    try:
        wait_until(lambda: b"Server is ready" in (directory / "nats.log").read_bytes(), 20, "nats")
        yield server
    finally:
        server.kill()
