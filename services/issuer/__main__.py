"""The issuer process: settings, wiring, run."""

import asyncio
import socket

from services.issuer.consumer import VerdictConsumer
from services.issuer.publish import publish_chains
from services.issuer.settings import Settings
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.bus.topology import Role
from shared.process import HttpServer, now
from shared.telemetry import EXPIRY_DAYS, operations_app
from shared.worker import working


async def serve(
    settings: Settings, name: str, operations: socket.socket, stop: asyncio.Event
) -> None:
    """Issue on verdicts until told to stop; health and metrics on `operations`."""
    bus = await JetStreamBus.connect(settings.bus_url, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.ISSUER, settings.shards[0])
    await publish_chains(bus, settings)
    consumer = VerdictConsumer(bus, settings, now)
    for issuer, ca in settings.issuers.items():
        EXPIRY_DAYS.labels("ca", issuer).set((ca.ceilings.ca_not_after - now()) / 86400)
    server = HttpServer(operations_app(lambda: "" if bus.connected else "bus"), [operations])
    server.start()
    handlers = (consumer.handle, consumer.give_up)
    async with working(bus, Role.ISSUER, settings.shards, handlers, settings.concurrency):
        await stop.wait()
    await server.stop()
    await bus.close()
