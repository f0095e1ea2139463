"""A real nats-server for a test: its own directory, keys, ports and pid, on 127.0.0.1."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nkeys

from cli.up.ports import nats_port
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision, server_config
from shared.bus.servers import Servers
from shared.bus.users import User, public_key_of
from shared.log.roles import Role
from tests.support.system import wait_until


def new_seed() -> str:
    return bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)).decode()


@dataclass
class NatsServer:
    """A provisioned server that can be killed and started again; `change` alters its file."""

    directory: Path
    port: int = field(default_factory=lambda: nats_port(0))
    seeds: dict[Role, str] = field(default_factory=lambda: {role: new_seed() for role in Role})
    replica_seeds: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    change: Callable[[str], str] = str

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def users(self) -> list[User]:
        """One for each role, and those of single replicas."""
        shared = [User(role, public_key_of(seed)) for role, seed in self.seeds.items()]
        return shared + [
            User(Role(name.partition("-")[0]), public_key_of(seed), name)
            for name, seed in self.replica_seeds.items()
        ]

    def start(self) -> None:
        config = self.directory / "nats-server.conf"
        store = self.directory / "jetstream"
        listen = f"127.0.0.1:{self.port}"
        text = server_config(self.users(), ["0"], store, listen, "100ms")
        config.write_text(self.change(text))
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
        await provision(Servers.of(self.url), self.seeds[Role.PROVISIONER], ["0"], 1)

    async def connect(self, role: Role, timeout: float = 5.0) -> JetStreamBus:
        return await JetStreamBus.connect(
            Servers.of(self.url), self.seeds[role], role.value, timeout
        )

    async def connect_replica(self, name: str) -> JetStreamBus:
        return await JetStreamBus.connect(Servers.of(self.url), self.replica_seeds[name], name)


@contextmanager
def nats_server(directory: Path, replicas: Sequence[str] = ()) -> Iterator[NatsServer]:
    """A running, not yet provisioned server; `replicas` have keys of their own."""
    server = NatsServer(directory, replica_seeds={name: new_seed() for name in replicas})
    server.start()
    try:
        wait_until(lambda: b"Server is ready" in (directory / "nats.log").read_bytes(), 20, "nats")
        yield server
    finally:
        server.kill()
