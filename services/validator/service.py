"""The validator process: wiring and run."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from services.validator.confirmation import ConfirmationWorkers, Confirmer
from services.validator.connections import Clients, Connections
from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.heartbeat import ValidatorHeartbeats
from services.validator.microsoft.client import Intune
from services.validator.notify import NotificationWorkers
from services.validator.settings import Settings
from services.validator.verdicts import count_from_zero
from shared.bus.core import Bus
from shared.ca.chains import ChainBook
from shared.log.envelope import Stored, Trusted
from shared.log.roles import Role
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.observe.logs import log_left_out
from shared.observe.metrics import operations_app
from shared.runtime.process import HttpServer, Signals, now
from shared.runtime.reload import Source
from shared.runtime.replica import Replica
from shared.runtime.resuming import Consumer, ResumeConsumer
from shared.runtime.worker import Job, Workers


@dataclass(frozen=True)
class Resuming:
    """Resumes attempts without a verdict, and those whose certificate is not confirmed."""

    parts: tuple[ResumeConsumer, ...]

    @classmethod
    def of(
        cls, bus: Bus, requests: Consumer, confirmer: Consumer, trusted: Callable[[], Trusted]
    ) -> Self:
        """Return what carries out the commands for both stages."""
        verdicts = ResumeConsumer(bus, Stage.VERDICT, requests, trusted)
        # A confirmation that failed is followed by the order to revoke the certificate.
        confirmations = ResumeConsumer(bus, Stage.CONFIRMATION, confirmer, trusted, follows=True)
        return cls((verdicts, confirmations))

    async def handle(self, stored: Stored) -> None:
        """Carry out a command; the part for another stage ignores it."""
        for part in self.parts:
            await part.handle(stored)

    async def give_up(self, stored: Stored) -> None:
        """End the attempt of a command that always fails."""
        for part in self.parts:
            await part.give_up(stored)


async def serve(
    source: Source[Settings], name: str, operations: socket.socket, signals: Signals
) -> None:
    """Evaluate requests until stopped; serve health and metrics on `operations`."""
    replica = await Replica.connect(Role.VALIDATOR, source, name)
    bus, live = replica.bus, replica.live
    chains, clients = ChainBook.of(bus, live.current.chains()), Clients()
    await chains.start()
    evaluator = Evaluator(bus, live, chains, clients, replica.clock)
    connections = Connections(evaluator, clients, Intune, name, replica.clock)
    connections.apply(live.current.connections())
    _announce(live.current)
    since, clock, reports = replica.since, replica.clock, connections.reports
    heartbeats = ValidatorHeartbeats.of(evaluator, name, since, clock, reports)
    consumer, confirmer = RequestConsumer(evaluator), Confirmer(evaluator, clients, name, clock)
    resuming = Resuming.of(bus, consumer, confirmer, lambda: live.current.operators)
    workers = Workers(bus, Role.VALIDATOR)
    senders = (NotificationWorkers(evaluator, now), ConfirmationWorkers(confirmer))

    async def reconcile(shards: tuple[str, ...]) -> None:
        jobs = [Job(enroll_stream(s), consumer.handle, consumer.give_up) for s in shards]
        jobs.append(Job(OPS, resuming.handle, resuming.give_up))
        await workers.reconcile(jobs, live.current.places())
        for sender in senders:
            await sender.reconcile(shards)

    shards = replica.watch(reconcile)

    async def apply(settings: Settings) -> None:
        chains.set_wanted(settings.chains())
        connections.apply(settings.connections())
        live.current = settings
        heartbeats.look_now()
        await shards.set_epochs(settings.epochs)

    def missing() -> str:
        chainless = [f"CA chain of {issuer}" for issuer in chains.missing()]
        return ", ".join([*replica.problems(shards), *chainless])

    server = HttpServer(operations_app(missing), [operations])
    server.start()
    reloading = replica.reloader(apply).on(signals.hangup)
    async with replica.running(shards, reloading, heartbeats.run()):
        await signals.stop.wait()
    await asyncio.gather(workers.stop(), *(sender.stop() for sender in senders))
    await connections.stop()
    await server.stop()
    chains.stop()
    await bus.close()


def _announce(settings: Settings) -> None:
    """Export the counters of the profiles at 0, and log which are left out."""
    count_from_zero({name: access.kinds for name, access in settings.access.items()})
    log_left_out(settings.left_out)
