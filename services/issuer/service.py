"""The issuer process: wiring and run."""

import asyncio
import socket

from services.issuer.chains import publish_chains
from services.issuer.commands import Commands
from services.issuer.consumer import VerdictConsumer
from services.issuer.crl_keeper import CrlKeeper
from services.issuer.orphans import OrphanConsumer, OrphanKeeper
from services.issuer.ra import RaRenewer
from services.issuer.responder import Responder
from services.issuer.revocation import RevocationConsumer
from services.issuer.settings import Settings
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.observe.logs import log_failure
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
    responder, keeper = Responder(bus, live, clock, name), CrlKeeper(bus, live, clock)
    issuing = VerdictConsumer(bus, live, clock, responder)
    revoking = RevocationConsumer(bus, live, keeper, responder)
    resuming = ResumeConsumer(bus, Stage.OUTCOME, issuing, lambda: live.current.operators)
    commands = Commands(revoking, OrphanConsumer(bus, live), resuming)
    workers = Workers(bus, Role.ISSUER)

    async def reconcile(shards: tuple[str, ...]) -> None:
        jobs = [Job(enroll_stream(s), issuing.handle, issuing.give_up) for s in shards]
        jobs += [Job(OPS, commands.handle, commands.give_up), *responder.jobs()]
        await workers.reconcile(jobs, live.current.places())

    shards = replica.watch(reconcile)
    retired: set[asyncio.Task[None]] = set()

    async def apply(settings: Settings) -> None:
        before, live.current = live.current, settings
        task = asyncio.create_task(_retire(before))
        retired.add(task)
        task.add_done_callback(retired.discard)
        await publish_chains(bus, settings)
        _measure(settings)
        keeper.look_now()
        await shards.set_epochs(settings.epochs)

    def missing() -> str:
        return ", ".join([*replica.problems(shards), *live.current.ended(now())])

    server = HttpServer(operations_app(missing), [operations])
    server.start()
    renewing, orphans = RaRenewer(bus, live, clock), OrphanKeeper(bus, live, clock)
    signing = (keeper.run(), responder.run(), responder.run_search(), renewing.run())
    work = (*signing, orphans.run(), replica.beat(), replica.reloader(apply).on(signals.hangup))
    async with replica.running(shards, *work):
        await signals.stop.wait()
    await workers.stop()
    for task in retired:
        task.cancel()
    await _close(live.current)
    await server.stop()
    await bus.close()


async def _retire(settings: Settings) -> None:
    """Close the connectors of settings that were replaced, once their calls have ended."""
    await asyncio.sleep(max((each.lease for each in settings.issuers.values()), default=0.0))
    await _close(settings)


async def _close(settings: Settings) -> None:
    for connector in settings.issuers.values():
        try:
            await connector.close()
        except Exception as error:  # noqa: BLE001 - a package's error; nothing depends on it
            log_failure("connector_close_failed", error)


def _measure(settings: Settings) -> None:
    """Export the days until each CA ends, for alerts."""
    ends = {n: float(a.current.ceilings.ca_not_after) for n, a in settings.issuers.items()}
    measure_expiry("ca", ends, now)
