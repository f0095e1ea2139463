"""The validator process: settings, wiring, run."""

import socket

from services.validator.consumer import RequestConsumer
from services.validator.judging import Judge
from services.validator.notify import notifying
from services.validator.replica import Replica
from services.validator.settings import Settings
from services.validator.verdicts import count_from_zero
from shared.bus.jetstream import JetStreamBus
from shared.bus.moving import Mover
from shared.bus.selftest import assert_least_privilege
from shared.bus.topology import OPS, Role, enroll_stream, replica_subject
from shared.chains import ChainBook
from shared.logclock import LogClock
from shared.process import HttpServer, Signals, background, log_left_out, now
from shared.reload import Source, reload_on
from shared.resuming import ResumeConsumer
from shared.subjects import Stage
from shared.telemetry import operations_app
from shared.worker import Job, working


async def serve(
    source: Source[Settings], name: str, operations: socket.socket, signals: Signals
) -> None:
    """Judge requests until told to stop; health and metrics on `operations`."""
    settings, since = source.first, int(now())
    bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.VALIDATOR, settings.shards[0])
    chains = ChainBook.of(bus, settings.chains())
    await chains.start()
    judge = Judge(bus, settings, chains)
    clock = LogClock(bus, replica_subject(Role.VALIDATOR, name))
    count_from_zero({name: access.kinds for name, access in settings.access.items()})
    log_left_out(settings.left_out)
    consumer, replica = RequestConsumer(judge), Replica(judge, name, now, since, clock)
    resuming = ResumeConsumer(bus, Stage.VERDICT, consumer, lambda: judge.settings.operators)

    async def apply(settings: Settings) -> None:
        chains.want(settings.chains())
        judge.settings = settings
        replica.look_now()

    def ready() -> str:
        missing = [*bus.problems(), *clock.problems()]
        return ", ".join(missing + [f"CA chain of {issuer}" for issuer in chains.missing()])

    server = HttpServer(operations_app(ready), [operations])
    server.start()
    jobs = [Job(enroll_stream(s), consumer.handle, consumer.give_up) for s in settings.shards]
    jobs.append(Job(OPS, resuming.handle, resuming.give_up))
    async with (
        background(reload_on(signals.hangup, source, apply)),
        background(replica.run()),
        background(Mover(bus, settings.servers, settings.nkey_seed, Role.VALIDATOR, name).run()),
        working(bus, Role.VALIDATOR, jobs, settings.places()),
        notifying(judge, now),
    ):
        await signals.stop.wait()
    await server.stop()
    chains.stop()
    await bus.close()
