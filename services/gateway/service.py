"""The gateway process: settings, wiring, run."""

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from services.gateway.app import Gateway
from services.gateway.enroll import Enroller
from services.gateway.heartbeat import GatewayHeartbeats
from services.gateway.lookups import Lookups
from services.gateway.outcomes import Outcomes
from services.gateway.retry import Retrier
from services.gateway.settings import Settings
from services.gateway.tls import Contexts
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.bus.topology import gateway_hints, quota_hints
from shared.ca.chains import ChainBook
from shared.config.load import SettingsError
from shared.limits import START_SECONDS
from shared.log.roles import Role
from shared.log.shards import all_shards
from shared.log.subjects import replica_subject
from shared.observe.logs import log_left_out
from shared.observe.metrics import measure_expiry, operations_app
from shared.runtime.connections import Connections
from shared.runtime.log_clock import LogClock
from shared.runtime.moving import Mover
from shared.runtime.process import HttpServer, Signals, background, now
from shared.runtime.reload import Reloader, Source
from shared.runtime.shard_watch import ShardWatch

_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Listeners:
    """Sockets already bound: SCEP, health and metrics, and where wanted SCEP over TLS and mTLS."""

    scep: socket.socket
    operations: socket.socket
    tls: socket.socket | None = None
    mtls: socket.socket | None = None


@dataclass
class Readiness:
    """What /readyz answers, from before there is a gateway on."""

    gateway: Gateway | None = None
    clock: LogClock | None = None
    shards: ShardWatch | None = None

    def __call__(self) -> str:
        """Return what is missing."""
        if self.gateway is None or self.clock is None or self.shards is None:
            return "bus"
        missing = (self.gateway.ready(), *self.clock.problems(), *self.shards.problems())
        return ", ".join(filter(None, missing))

    async def wait(self, seconds: float, stop: asyncio.Event) -> None:
        """Wait until nothing is missing; at most so long, and not beyond `stop`."""
        deadline = time.monotonic() + seconds
        while self() and not stop.is_set() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
        if missing := self():
            structlog.get_logger().warning("serving_unready", missing=missing)


async def serve(
    source: Source[Settings], name: str, listeners: Listeners, signals: Signals
) -> None:
    """Serve SCEP until told to stop; health and metrics from the beginning."""
    settings, readiness = source.first, Readiness()
    contexts = Contexts.of(settings.tls, settings.client_cas()) if settings.tls else None
    if contexts is None and (listeners.tls or listeners.mtls):
        raise SettingsError("gateway.tls_cert_path: a TLS listener needs it")
    operations = HttpServer(operations_app(readiness), [listeners.operations])
    operations.start()
    try:
        await _serve(source, name, (listeners, contexts, readiness), signals)
    finally:
        await operations.stop()


async def _serve(
    source: Source[Settings],
    name: str,
    edge: tuple[Listeners, Contexts | None, Readiness],
    signals: Signals,
) -> None:
    listeners, contexts, readiness = edge
    settings, since = source.first, int(now())
    bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.GATEWAY, all_shards(settings.epochs)[0])
    chains = ChainBook.of(bus, settings.chains())
    clock = LogClock(bus, replica_subject(Role.GATEWAY, name))
    outcomes, lookups = Outcomes(bus, settings, chains), Lookups(bus, settings)
    enroller = Enroller(bus, settings, outcomes, lookups, name, clock)
    gateway = Gateway(bus, settings, chains, enroller, clock)
    connections = Connections(time.monotonic, settings.shares, gateway.is_proxy)
    retrier, shards = Retrier(bus, settings, name), ShardWatch(bus, settings.epochs, clock)
    await bus.on_hint(gateway_hints(name), outcomes.on_hint)
    await bus.on_hint("command.*", retrier.on_hint)
    await bus.on_hint(quota_hints("*"), enroller.quota.on_hint)
    await chains.start()
    _tell(settings)

    async def apply(settings: Settings) -> None:
        if contexts and settings.tls:
            contexts.load(settings.tls, settings.client_cas())
        chains.want(settings.chains())
        gateway.settings = enroller.settings = outcomes.settings = lookups.settings = settings
        connections.shares = settings.shares
        retrier.settings = heartbeats.settings = enroller.quota.settings = settings
        _measure(settings)
        await shards.want(settings.epochs)

    reloader = Reloader(source, apply)
    heartbeats = GatewayHeartbeats(
        bus=bus, settings=settings, name=name, since=since, reloader=reloader, log_clock=clock
    )
    mover = Mover(bus, settings.servers, settings.nkey_seed, Role.GATEWAY, name)
    async with AsyncExitStack() as running:
        work = (reloader.on(signals.hangup), heartbeats.run(), mover.run(), enroller.resender.run())
        await _beside(running, (*work, shards.run()))
        # Connections wait in the kernel meanwhile: better than a 503 while the chains are read.
        readiness.gateway, readiness.clock, readiness.shards = gateway, clock, shards
        await readiness.wait(START_SECONDS, signals.stop)
        for server in _servers(gateway, listeners, contexts, connections):
            server.start()
            running.push_async_callback(server.stop)
        await signals.stop.wait()
    chains.stop()
    await bus.close()


async def _beside(running: AsyncExitStack, work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Let each of these go on until the stack is left."""
    for each in work:
        await running.enter_async_context(background(each))


def _servers(
    gateway: Gateway, listeners: Listeners, contexts: Contexts | None, connections: Connections
) -> list[HttpServer]:
    """One application on every listener that there is; connections of devices count together."""
    app = gateway.app()
    servers = [HttpServer(app, [listeners.scep], None, connections, gateway)]
    if contexts is not None and listeners.tls is not None:
        servers.append(HttpServer(app, [listeners.tls], contexts.tls, connections))
    if contexts is not None and listeners.mtls is not None:
        servers.append(HttpServer(app, [listeners.mtls], contexts.mutual, connections))
    return servers


def _tell(settings: Settings) -> None:
    """Log and measure what was read at start."""
    log_left_out(settings.left_out)
    _measure(settings)


def _measure(settings: Settings) -> None:
    """Days until each profile's RA certificates end, for alerts."""
    ends = {p.name: p.ra.not_after.timestamp() for p in settings.profiles.values()}
    measure_expiry("ra", ends, now)
