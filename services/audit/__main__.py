"""The audit process: settings, wiring, run."""

import asyncio
import os
import socket
from collections.abc import Callable

from services.audit.admin.app import admin_app
from services.audit.admin.bounded import Bounded
from services.audit.admin.desk import Desk
from services.audit.admin.first import ensure_admin
from services.audit.admin.forms import WholeForms
from services.audit.backlog import Backlog
from services.audit.checkpoints import Checkpoints
from services.audit.consumer import StreamRecorder
from services.audit.database import migrate, open_engine
from services.audit.office import Office
from services.audit.readiness import Readiness
from services.audit.room import Room
from services.audit.settings import Settings, admin_token
from services.audit.sweeper import Sweeper
from shared.bus.jetstream import JetStreamBus
from shared.bus.moving import Mover
from shared.bus.selftest import assert_least_privilege
from shared.bus.topology import Role, enroll_stream, replica_subject
from shared.logclock import LogClock, heartbeat
from shared.process import HttpServer, Signals, background, now
from shared.sections import Configuration

_ITSELF = "scepstream"  # who makes the first admin's token


async def serve(
    settings: Settings,
    configuration: Callable[[], Configuration],
    name: str,
    operations: socket.socket,
    signals: Signals,
) -> None:
    """Record every event until told to stop; page, API, health and metrics on `operations`.

    `configuration` reads the file anew: what operators are shown is what it says now.
    """
    os.umask(0o077)  # the database is nobody else's to read
    engine = open_engine(settings.database_url)
    await asyncio.to_thread(migrate, engine)
    bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.AUDIT, settings.shards[0])
    office = Office.of(bus, settings, configuration(), _ITSELF)
    await ensure_admin(office, engine, lambda: admin_token(configuration()), now())
    recorders = [StreamRecorder(bus, engine, s, settings.batch) for s in settings.streams]
    clock = LogClock(bus, replica_subject(Role.AUDIT, name))
    checkpoints = Checkpoints(bus, engine, settings.signer, settings.streams, clock)
    desk = Desk(engine, bus, settings, configuration, now)
    readiness = Readiness(bus, engine, recorders, clock.problems)
    room = Room(bus, settings.signer, [enroll_stream(s) for s in settings.shards], now)
    backlog = Backlog(bus, engine, settings.streams, clock)
    sweeper = Sweeper(bus, engine, settings.signer, office.validators, clock)
    app = admin_app(desk, readiness.missing)
    server = HttpServer(WholeForms(Bounded(app, readiness.database_away)), [operations])
    server.start()
    for recorder in recorders:
        await recorder.start()
    since = int(now())
    async with (
        background(clock.run(lambda: heartbeat(Role.AUDIT, name, since))),
        background(checkpoints.run()),
        background(Mover(bus, settings.servers, settings.nkey_seed, Role.AUDIT, name).run()),
        background(readiness.run()),
        background(backlog.run()),
        background(room.run()),
        background(sweeper.run()),
    ):
        await signals.stop.wait()
    for recorder in recorders:
        await recorder.stop()
    await server.stop()
    await bus.close()
    engine.dispose()
