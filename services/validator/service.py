"""The validator process: wiring and run."""

import asyncio
import socket

from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.heartbeat import ValidatorHeartbeats
from services.validator.notify import NotificationWorkers
from services.validator.settings import Settings
from services.validator.verdicts import count_from_zero
from shared.ca.chains import ChainBook
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.observe.logs import log_left_out
from shared.observe.metrics import operations_app
from shared.runtime.process import HttpServer, Signals, now
from shared.runtime.reload import Source
from shared.runtime.replica import Replica
from shared.runtime.resuming import ResumeConsumer
from shared.runtime.worker import Job, Workers


async def serve(
    source: Source[Settings], name: str, operations: socket.socket, signals: Signals
) -> None:
    """Evaluate requests until stopped; serve health and metrics on `operations`."""
    replica = await Replica.connect(Role.VALIDATOR, source, name)
    bus, live = replica.bus, replica.live
    chains = ChainBook.of(bus, live.current.chains())
    await chains.start()
    evaluator = Evaluator(bus, live, chains)
    count_from_zero({name: access.kinds for name, access in live.current.access.items()})
    log_left_out(live.current.left_out)
    consumer = RequestConsumer(evaluator)
    heartbeats = ValidatorHeartbeats.of(evaluator, name, replica.since, replica.clock)
    resuming = ResumeConsumer(bus, Stage.VERDICT, consumer, lambda: live.current.operators)
    workers, notifications = Workers(bus, Role.VALIDATOR), NotificationWorkers(evaluator, now)

    async def reconcile(shards: tuple[str, ...]) -> None:
        jobs = [Job(enroll_stream(s), consumer.handle, consumer.give_up) for s in shards]
        jobs.append(Job(OPS, resuming.handle, resuming.give_up))
        await workers.reconcile(jobs, live.current.places())
        await notifications.reconcile(shards)

    shards = replica.watch(reconcile)

    async def apply(settings: Settings) -> None:
        chains.set_wanted(settings.chains())
        live.current = settings
        heartbeats.look_now()
        await shards.set_epochs(settings.epochs)

    def missing() -> str:
        chainless = [f"CA chain of {issuer}" for issuer in chains.missing()]
        return ", ".join([*replica.problems(shards), *chainless])

    server = HttpServer(operations_app(missing), [operations])
    server.start()
    reloader = replica.reloader(apply)
    async with replica.running(shards, reloader.on(signals.hangup), heartbeats.run()):
        await signals.stop.wait()
    await asyncio.gather(workers.stop(), notifications.stop())
    await server.stop()
    chains.stop()
    await bus.close()
