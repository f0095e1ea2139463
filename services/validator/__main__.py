"""The validator process: settings, wiring, run."""

import asyncio
import socket

from services.validator.consumer import RequestConsumer
from services.validator.settings import Settings
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.bus.topology import Role
from shared.chains import ChainBook
from shared.process import HttpServer
from shared.telemetry import operations_app
from shared.worker import working


async def serve(
    settings: Settings, name: str, operations: socket.socket, stop: asyncio.Event
) -> None:
    """Judge requests until told to stop; health and metrics on `operations`."""
    bus = await JetStreamBus.connect(settings.bus_url, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.VALIDATOR, settings.shards[0])
    policies = settings.policies.values()
    chains = ChainBook.of(bus, {(p.issuer, p.ca_spki_sha256) for p in policies})
    await chains.start()
    consumer = RequestConsumer(bus, settings, chains)

    def ready() -> str:
        missing = [] if bus.connected else ["bus"]
        return ", ".join(missing + [f"CA chain of {issuer}" for issuer in chains.missing()])

    server = HttpServer(operations_app(ready), [operations])
    server.start()
    handlers = (consumer.handle, consumer.give_up)
    async with working(bus, Role.VALIDATOR, settings.shards, handlers, settings.concurrency):
        await stop.wait()
    await server.stop()
    chains.stop()
    await bus.close()
