"""The gateway process: wiring and run."""

import asyncio
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from services.gateway.app import Gateway
from services.gateway.enroll import Enroller
from services.gateway.heartbeat import GatewayHeartbeats
from services.gateway.lookups import Lookups
from services.gateway.outcomes import Outcomes
from services.gateway.ra_renewal import RaRenewals
from services.gateway.retry import Retrier
from services.gateway.settings import Settings
from services.gateway.tls import Contexts
from shared.bus.topology import gateway_hints, ocsp_hints, quota_hints
from shared.ca.chains import ChainBook
from shared.config.load import SettingsError
from shared.limits import START_SECONDS
from shared.log.roles import Role
from shared.observe.logs import log_left_out
from shared.observe.metrics import measure_expiry, operations_app
from shared.runtime.connections import Connections
from shared.runtime.log_clock import LogClock
from shared.runtime.process import HttpServer, Signals, now
from shared.runtime.reload import Source
from shared.runtime.replica import Replica
from shared.runtime.shard_watch import ShardWatch

_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Listeners:
    """Bound sockets: SCEP, health and metrics, and optionally SCEP over TLS and mTLS."""

    scep: socket.socket
    operations: socket.socket
    tls: socket.socket | None = None
    mtls: socket.socket | None = None


@dataclass
class Readiness:
    """Readiness for /readyz, from before the gateway is connected to the bus."""

    gateway: Gateway | None = None
    clock: LogClock | None = None
    shards: ShardWatch | None = None

    def __call__(self) -> str:
        """Return what is still missing, "" if the gateway is ready."""
        if self.gateway is None or self.clock is None or self.shards is None:
            return "bus"
        missing = (self.gateway.ready(), *self.clock.problems(), *self.shards.problems())
        return ", ".join(filter(None, missing))

    async def wait(self, seconds: float, stop: asyncio.Event) -> None:
        """Wait until ready, for at most this many seconds or until `stop` is set."""
        deadline = time.monotonic() + seconds
        while self() and not stop.is_set() and time.monotonic() < deadline:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
        if missing := self():
            structlog.get_logger().warning("serving_unready", missing=missing)


async def serve(
    source: Source[Settings], name: str, listeners: Listeners, signals: Signals
) -> None:
    """Serve SCEP until signaled to stop. Health and metrics are served from the beginning."""
    settings, readiness = source.first, Readiness()
    contexts = Contexts.of(settings.tls, settings.client_cas()) if settings.tls else None
    if contexts is None and (listeners.tls or listeners.mtls):
        raise SettingsError("gateway.tls_cert_path: required for a TLS listener")
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
    replica = await Replica.connect(Role.GATEWAY, source, name)
    bus, live, clock = replica.bus, replica.live, replica.clock
    chains = ChainBook.of(bus, live.current.chains())
    outcomes, lookups = Outcomes(bus, live, chains), Lookups(bus, live)
    enroller = Enroller(bus, live, outcomes, lookups, name, clock)
    gateway = Gateway(bus, live, chains, enroller, clock)
    connections = Connections(time.monotonic, live.current.shares, gateway.is_proxy)
    retrier, shards = Retrier(bus, live, name), replica.watch()
    await bus.on_hint(gateway_hints(name), outcomes.on_hint)
    await bus.on_hint("command.*", retrier.on_hint)
    await bus.on_hint(ocsp_hints("*"), gateway.statuses.on_hint)
    await bus.on_hint(quota_hints("*"), enroller.quota.on_hint)
    await chains.start()
    log_left_out(live.current.left_out)
    _measure(live.current)

    renewals = RaRenewals(bus, live, chains, clock, lambda: _measure(live.current))

    async def apply(settings: Settings) -> None:
        if contexts and settings.tls:
            contexts.load(settings.tls, settings.client_cas())
        chains.set_wanted(settings.chains())
        live.current = renewals.beside(settings)
        connections.shares = settings.shares
        _measure(live.current)
        await shards.set_epochs(settings.epochs)

    reloader = replica.reloader(apply)
    heartbeats = GatewayHeartbeats(
        bus=bus, live=live, name=name, since=replica.since, reloader=reloader, log_clock=clock
    )
    work = (reloader.on(signals.hangup), heartbeats.run(), enroller.resender.run())
    async with replica.running(shards, *work, renewals.run()) as running:
        # Until then connections wait in the kernel: better than a 503 while chains are read.
        readiness.gateway, readiness.clock, readiness.shards = gateway, clock, shards
        await readiness.wait(START_SECONDS, signals.stop)
        for server in _servers(gateway, listeners, contexts, connections):
            server.start()
            running.push_async_callback(server.stop)
        await signals.stop.wait()
    chains.stop()
    await bus.close()


def _servers(
    gateway: Gateway, listeners: Listeners, contexts: Contexts | None, connections: Connections
) -> list[HttpServer]:
    """Return a server for each listener. They share the application and the connection limits."""
    app, quick = gateway.app(), gateway.statuses.at_hand
    servers = [HttpServer(app, [listeners.scep], None, connections, gateway, quick)]
    if contexts is not None and listeners.tls is not None:
        servers.append(HttpServer(app, [listeners.tls], contexts.tls, connections, None, quick))
    if contexts is not None and listeners.mtls is not None:
        servers.append(HttpServer(app, [listeners.mtls], contexts.mutual, connections))
    return servers


def _measure(settings: Settings) -> None:
    """Export the days until each profile's RA certificates expire, for alerts."""
    ends = {p.name: p.ra.not_after.timestamp() for p in settings.profiles.values()}
    measure_expiry("ra", ends, now)
