"""The validator process: settings, wiring, run."""

import asyncio
import socket

from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.heartbeat import ValidatorHeartbeats
from services.validator.notify import Telling
from services.validator.settings import Settings
from services.validator.verdicts import count_from_zero
from shared.bus.jetstream import JetStreamBus
from shared.bus.selftest import assert_least_privilege
from shared.ca.chains import ChainBook
from shared.log.roles import Role
from shared.log.shards import all_shards
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.log.subjects import replica_subject
from shared.observe.logs import log_left_out
from shared.observe.metrics import operations_app
from shared.runtime.log_clock import LogClock
from shared.runtime.moving import Mover
from shared.runtime.process import HttpServer, Signals, background, now
from shared.runtime.reload import Source, reload_on
from shared.runtime.resuming import ResumeConsumer
from shared.runtime.shard_watch import ShardWatch
from shared.runtime.worker import Job, Workers


async def serve(
    source: Source[Settings], name: str, operations: socket.socket, signals: Signals
) -> None:
    """Judge requests until told to stop; health and metrics on `operations`."""
    settings, since = source.first, int(now())
    bus = await JetStreamBus.connect(settings.servers, settings.nkey_seed, name)
    await assert_least_privilege(bus, Role.VALIDATOR, all_shards(settings.epochs)[0])
    chains = ChainBook.of(bus, settings.chains())
    await chains.start()
    evaluator = Evaluator(bus, settings, chains)
    clock = LogClock(bus, replica_subject(Role.VALIDATOR, name))
    count_from_zero({name: access.kinds for name, access in settings.access.items()})
    log_left_out(settings.left_out)
    consumer = RequestConsumer(evaluator)
    heartbeats = ValidatorHeartbeats.of(evaluator, name, since, clock)
    resuming = ResumeConsumer(bus, Stage.VERDICT, consumer, lambda: evaluator.settings.operators)
    workers, telling = Workers(bus, Role.VALIDATOR), Telling(evaluator, now)

    async def bring(shards: tuple[str, ...]) -> None:
        jobs = [Job(enroll_stream(s), consumer.handle, consumer.give_up) for s in shards]
        jobs.append(Job(OPS, resuming.handle, resuming.give_up))
        await workers.bring(jobs, evaluator.settings.places())
        await telling.bring(shards)

    shards = ShardWatch(bus, settings.epochs, clock, bring)

    async def apply(settings: Settings) -> None:
        chains.want(settings.chains())
        evaluator.settings = settings
        heartbeats.look_now()
        await shards.want(settings.epochs)

    def ready() -> str:
        missing = [*bus.problems(), *clock.problems(), *shards.problems()]
        return ", ".join(missing + [f"CA chain of {issuer}" for issuer in chains.missing()])

    server = HttpServer(operations_app(ready), [operations])
    server.start()
    async with (
        background(reload_on(signals.hangup, source, apply)),
        background(heartbeats.run()),
        background(Mover(bus, settings.servers, settings.nkey_seed, Role.VALIDATOR, name).run()),
        background(shards.run()),
    ):
        await signals.stop.wait()
    await asyncio.gather(workers.stop(), telling.stop())
    await server.stop()
    chains.stop()
    await bus.close()
