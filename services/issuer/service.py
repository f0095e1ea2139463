"""The issuer process: settings, wiring, run."""

import socket

from services.issuer.chains import publish_chains
from services.issuer.commands import Commands
from services.issuer.consumer import VerdictConsumer
from services.issuer.revocation import CrlKeeper, RevocationConsumer
from services.issuer.settings import Settings
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.log.roles import Role
from shared.log.shards import all_shards
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.log.subjects import replica_subject
from shared.observe.metrics import measure_expiry, operations_app
from shared.runtime.log_clock import LogClock, heartbeat
from shared.runtime.moving import Mover
from shared.runtime.process import HttpServer, Signals, background, now
from shared.runtime.reload import Source, reload_on
from shared.runtime.resuming import ResumeConsumer
from shared.runtime.shard_watch import ShardWatch
from shared.runtime.worker import Job, Workers


async def serve(
    source: Source[Settings], name: str, operations: socket.socket, signals: Signals
) -> None:
    """Issue, revoke and keep CRLs until told to stop; health and metrics on `operations`."""
    settings, since = source.first, int(now())
    bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.ISSUER, all_shards(settings.epochs)[0])
    mover = Mover(bus, settings.servers, settings.nkey_seed, Role.ISSUER, name)
    await mover.outlast(lambda: publish_chains(bus, settings))
    _measure(settings)
    clock = LogClock(bus, replica_subject(Role.ISSUER, name))
    issuing = VerdictConsumer(bus, settings, clock)
    keeper = CrlKeeper(bus, settings, clock)
    revoking = RevocationConsumer(bus, settings, keeper)
    resuming = ResumeConsumer(bus, Stage.OUTCOME, issuing, lambda: issuing.settings.operators)
    commands = Commands(revoking, resuming)
    workers = Workers(bus, Role.ISSUER)

    async def bring(shards: tuple[str, ...]) -> None:
        jobs = [Job(enroll_stream(s), issuing.handle, issuing.give_up) for s in shards]
        jobs.append(Job(OPS, commands.handle, commands.give_up))
        await workers.bring(jobs, issuing.settings.places())

    shards = ShardWatch(bus, settings.epochs, clock, bring)

    async def apply(settings: Settings) -> None:
        issuing.settings = keeper.settings = revoking.settings = settings
        await publish_chains(bus, settings)
        _measure(settings)
        keeper.look_now()
        await shards.want(settings.epochs)

    def problems() -> str:
        missing = [*bus.problems(), *clock.problems(), *shards.problems()]
        return ", ".join(missing + issuing.settings.ended(now()))

    server = HttpServer(operations_app(problems), [operations])
    server.start()
    async with (
        background(reload_on(signals.hangup, source, apply)),
        background(clock.run(lambda: heartbeat(Role.ISSUER, name, since))),
        background(keeper.run()),
        background(mover.run()),
        background(shards.run()),
    ):
        await signals.stop.wait()
    await workers.stop()
    await server.stop()
    await bus.close()


def _measure(settings: Settings) -> None:
    """Days until each CA ends, for alerts."""
    ends = {n: float(a.current.ceilings.ca_not_after) for n, a in settings.issuers.items()}
    measure_expiry("ca", ends, now)
