"""The gateway process: settings, wiring, run."""

import asyncio
import socket

from services.gateway.app import Gateway
from services.gateway.enroll import Enroller
from services.gateway.outcomes import Outcomes
from services.gateway.settings import Settings
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.bus.topology import Role, gateway_hints
from shared.chains import ChainBook
from shared.process import HttpServer, now
from shared.shards import all_shards
from shared.telemetry import EXPIRY_DAYS, operations_app


async def serve(
    settings: Settings,
    name: str,
    listener: socket.socket,
    operations: socket.socket,
    stop: asyncio.Event,
) -> None:
    """Serve SCEP on `listener` and health and metrics on `operations` until told to stop."""
    bus = await JetStreamBus.connect(settings.bus_url, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.GATEWAY, all_shards(settings.epochs)[0])
    chains = ChainBook.of(bus, {(p.issuer, p.ca_spki_sha256) for p in settings.profiles.values()})
    outcomes = Outcomes(bus, settings)
    await bus.on_hint(gateway_hints(name), outcomes.on_hint)
    await chains.start()
    gateway = Gateway(bus, settings, chains, Enroller(bus, settings, outcomes, name, now))
    for profile in settings.profiles.values():
        days = (profile.ra.not_after.timestamp() - now()) / 86400
        EXPIRY_DAYS.labels("ra", profile.name).set(days)
    servers = (
        HttpServer(gateway.app(), [listener]),
        HttpServer(operations_app(gateway.ready), [operations]),
    )
    for server in servers:
        server.start()
    await stop.wait()
    for server in servers:
        await server.stop()
    chains.stop()
    await bus.close()
