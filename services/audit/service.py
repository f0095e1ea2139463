"""The audit process: wiring and run."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from services.audit.api.deadlines import Bounded
from services.audit.api.dependencies import Dependencies
from services.audit.api.forms import WholeForms
from services.audit.app import admin_app
from services.audit.commands.context import OperatorContext
from services.audit.commands.first_admin import ensure_admin
from services.audit.commands.sweeper import Sweeper
from services.audit.expiry.gauges import ExpiryGauges
from services.audit.expiry.notifier import ExpiryNotifier
from services.audit.proof.checkpoints import Checkpoints
from services.audit.record.lag import Backlog
from services.audit.record.quota import QuotaMonitor
from services.audit.record.readiness import Readiness
from services.audit.recording import Recording
from services.audit.settings import Settings, admin_token
from services.audit.store.engine import Engine, migrate, open_engine
from shared.config.sections import Configuration
from shared.log.roles import Role
from shared.runtime.process import HttpServer, Signals, now
from shared.runtime.reload import Source
from shared.runtime.replica import Replica

_ITSELF = "scepstream"  # the operator that creates the first admin's token


async def serve(
    source: Source[Settings],
    configuration: Callable[[], Configuration],
    name: str,
    operations: socket.socket,
    signals: Signals,
) -> None:
    """Record every event until a stop signal; serve page, API, health and metrics.

    `operations` is the socket they are served on. `configuration` reads the file on each call, so
    that operators see its current content.
    """
    settings = source.first
    os.umask(0o077)  # only this user may read the database
    engine = open_engine(settings.database_url)
    await asyncio.to_thread(migrate, engine)
    replica = await Replica.connect(Role.AUDIT, source, name)
    bus, clock = replica.bus, replica.clock
    context = OperatorContext.of(bus, settings, configuration(), _ITSELF)
    await ensure_admin(context, engine, lambda: admin_token(configuration()), now())
    checkpoints = Checkpoints(bus, engine, settings.signer, (), clock)
    deps = Dependencies(engine, bus, settings, configuration, now)
    sweeper = Sweeper(bus, engine, settings.signer, context.validators, clock)
    quota, backlog = QuotaMonitor(bus, settings.signer, (), now), Backlog(bus, engine, (), clock)
    recording = Recording(bus, engine, settings.batch, checkpoints, backlog, quota)
    shards = replica.watch(recording.reconcile)
    readiness = Readiness(
        bus, engine, recording.recorders, lambda: [*clock.problems(), *shards.problems()]
    )
    app = admin_app(deps, readiness.missing)
    server = HttpServer(WholeForms(Bounded(app, readiness.database_away)), [operations])
    server.start()
    await shards.look()

    async def apply(settings: Settings) -> None:
        replica.live.current = settings
        await shards.set_epochs(settings.epochs)

    reloader = replica.reloader(apply)
    work = (checkpoints.run(), readiness.run(), backlog.run(), quota.run(), sweeper.run())
    expiry = _expiry(replica, engine, configuration)
    async with replica.running(shards, reloader.on(signals.hangup), replica.beat(), *work, *expiry):
        await signals.stop.wait()
    await recording.stop()
    await server.stop()
    await bus.close()
    engine.dispose()


def _expiry(
    replica: Replica[Settings], engine: Engine, configuration: Callable[[], Configuration]
) -> tuple[Coroutine[Any, Any, None], ...]:
    """Return the work that concerns certificates that expire."""
    notifier = ExpiryNotifier(
        replica.bus,
        engine,
        lambda: replica.live.current.expiry_webhook,
        configuration,
        replica.clock,
    )
    return ExpiryGauges(engine, configuration, replica.clock).run(), notifier.run()
