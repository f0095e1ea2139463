"""The audit process: settings, wiring, run."""

import asyncio
import os
import socket
from collections.abc import Callable

from services.audit.api.deadlines import Bounded
from services.audit.api.dependencies import Dependencies
from services.audit.api.forms import WholeForms
from services.audit.app import admin_app
from services.audit.commands.context import OperatorContext
from services.audit.commands.first_admin import ensure_admin
from services.audit.commands.sweeper import Sweeper
from services.audit.proof.checkpoints import Checkpoints
from services.audit.record.lag import Backlog
from services.audit.record.quota import Room
from services.audit.record.readiness import Readiness
from services.audit.recording import Recording
from services.audit.settings import Settings, admin_token
from services.audit.store.engine import migrate, open_engine
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.config.sections import Configuration
from shared.log.roles import Role
from shared.log.shards import all_shards
from shared.log.subjects import replica_subject
from shared.runtime.log_clock import LogClock, heartbeat
from shared.runtime.moving import Mover
from shared.runtime.process import HttpServer, Signals, background, now
from shared.runtime.reload import Source, reload_on
from shared.runtime.shard_watch import ShardWatch

_ITSELF = "scepstream"  # who makes the first admin's token


async def serve(
    source: Source[Settings],
    configuration: Callable[[], Configuration],
    name: str,
    operations: socket.socket,
    signals: Signals,
) -> None:
    """Record every event until told to stop; page, API, health and metrics on `operations`.

    `configuration` reads the file each time: operators see what it says now.
    """
    settings, since = source.first, int(now())
    os.umask(0o077)  # the database is nobody else's to read
    engine = open_engine(settings.database_url)
    await asyncio.to_thread(migrate, engine)
    bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.AUDIT, all_shards(settings.epochs)[0])
    context = OperatorContext.of(bus, settings, configuration(), _ITSELF)
    await ensure_admin(context, engine, lambda: admin_token(configuration()), now())
    clock = LogClock(bus, replica_subject(Role.AUDIT, name))
    checkpoints = Checkpoints(bus, engine, settings.signer, (), clock)
    deps = Dependencies(engine, bus, settings, configuration, now)
    sweeper = Sweeper(bus, engine, settings.signer, context.validators, clock)
    room, backlog = Room(bus, settings.signer, (), now), Backlog(bus, engine, (), clock)
    recording = Recording(bus, engine, settings.batch, checkpoints, backlog, room)
    shards = ShardWatch(bus, settings.epochs, clock, recording.bring)
    readiness = Readiness(
        bus, engine, recording.recorders, lambda: [*clock.problems(), *shards.problems()]
    )
    app = admin_app(deps, readiness.missing)
    server = HttpServer(WholeForms(Bounded(app, readiness.database_away)), [operations])
    server.start()
    await shards.look()
    async with (
        background(reload_on(signals.hangup, source, lambda new: shards.want(new.epochs))),
        background(clock.run(lambda: heartbeat(Role.AUDIT, name, since))),
        background(checkpoints.run()),
        background(Mover(bus, settings.servers, settings.nkey_seed, Role.AUDIT, name).run()),
        background(readiness.run()),
        background(backlog.run()),
        background(room.run()),
        background(shards.run()),
        background(sweeper.run()),
    ):
        await signals.stop.wait()
    await recording.stop()
    await server.stop()
    await bus.close()
    engine.dispose()
