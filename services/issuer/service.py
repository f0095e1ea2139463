"""The issuer process: wiring and run."""

import socket

from services.issuer.chains import publish_chains
from services.issuer.commands import Commands
from services.issuer.consumer import VerdictConsumer
from services.issuer.revocation import CrlKeeper, RevocationConsumer
from services.issuer.settings import Settings
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.observe.metrics import measure_expiry, operations_app
from shared.runtime.process import HttpServer, Signals, now
from shared.runtime.reload import Source
from shared.runtime.replica import Replica
from shared.runtime.resuming import ResumeConsumer
from shared.runtime.worker import Job, Workers


async def serve(
    source: Source[Settings], name: str, operations: socket.socket, signals: Signals
) -> None:
    """Issue, revoke and publish CRLs until stopped; serve health and metrics on `operations`."""
    replica = await Replica.connect(Role.ISSUER, source, name)
    bus, live, clock = replica.bus, replica.live, replica.clock
    await replica.mover.retry_step(lambda: publish_chains(bus, live.current))
    _measure(live.current)
    issuing, keeper = VerdictConsumer(bus, live, clock), CrlKeeper(bus, live, clock)
    revoking = RevocationConsumer(bus, live, keeper)
    resuming = ResumeConsumer(bus, Stage.OUTCOME, issuing, lambda: live.current.operators)
    commands = Commands(revoking, resuming)
    workers = Workers(bus, Role.ISSUER)

    async def reconcile(shards: tuple[str, ...]) -> None:
        jobs = [Job(enroll_stream(s), issuing.handle, issuing.give_up) for s in shards]
        jobs.append(Job(OPS, commands.handle, commands.give_up))
        await workers.reconcile(jobs, live.current.places())

    shards = replica.watch(reconcile)

    async def apply(settings: Settings) -> None:
        live.current = settings
        await publish_chains(bus, settings)
        _measure(settings)
        keeper.look_now()
        await shards.set_epochs(settings.epochs)

    def missing() -> str:
        return ", ".join([*replica.problems(shards), *live.current.ended(now())])

    server = HttpServer(operations_app(missing), [operations])
    server.start()
    work = (replica.reloader(apply).on(signals.hangup), replica.beat(), keeper.run())
    async with replica.running(shards, *work):
        await signals.stop.wait()
    await workers.stop()
    await server.stop()
    await bus.close()


def _measure(settings: Settings) -> None:
    """Export the days until each CA ends, for alerts."""
    ends = {n: float(a.current.ceilings.ca_not_after) for n, a in settings.issuers.items()}
    measure_expiry("ca", ends, now)
