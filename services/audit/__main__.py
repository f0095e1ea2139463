"""The audit process: settings, wiring, run."""

import asyncio
import os
import socket

from services.audit.checkpoints import Checkpoints
from services.audit.consumer import StreamRecorder
from services.audit.database import catch_up, migrate, open_engine
from services.audit.settings import Settings
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.bus.topology import Role
from shared.process import HttpServer, Signals, background, now
from shared.telemetry import operations_app


async def serve(settings: Settings, name: str, operations: socket.socket, signals: Signals) -> None:
    """Record every event until told to stop; health and metrics on `operations`."""
    os.umask(0o077)  # the database is nobody else's to read
    engine = open_engine(settings.database_url)
    await asyncio.to_thread(migrate, engine)
    bus = await JetStreamBus.connect(settings.bus_url, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.AUDIT, settings.shards[0])
    for stream in settings.streams:
        await asyncio.to_thread(catch_up, engine, stream)
    recorders = [StreamRecorder(bus, engine, s, settings.batch) for s in settings.streams]
    checkpoints = Checkpoints(bus, engine, settings.signer, settings.streams, now)
    server = HttpServer(operations_app(lambda: "" if bus.connected else "bus"), [operations])
    server.start()
    for recorder in recorders:
        await recorder.start()
    async with background(checkpoints.run()):
        await signals.stop.wait()
    for recorder in recorders:
        await recorder.stop()
    await server.stop()
    await bus.close()
    engine.dispose()
