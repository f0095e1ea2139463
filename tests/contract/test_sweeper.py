"""Messages that their consumer passes over, on a real server: the sweeper brings them to an end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Engine

from services.audit.commands.overdue import Patience
from services.audit.commands.sweeper import Sweeper
from services.audit.record.consumer import StreamRecorder
from services.audit.record.write import position
from services.audit.store.engine import migrate, open_engine
from services.issuer.chains import publish_chains
from services.issuer.commands import Commands
from services.issuer.connectors.local import LocalCa, LocalConnector
from services.issuer.consumer import VerdictConsumer
from services.issuer.crl_keeper import CrlKeeper
from services.issuer.orphans import OrphanConsumer
from services.issuer.responder import Responder
from services.issuer.revocation import RevocationConsumer
from services.issuer.settings import Settings as IssuerSettings
from services.validator.confirmation import Confirmer
from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.microsoft.calls import Microsoft
from services.validator.service import Resuming
from services.validator.settings import Settings as ValidatorSettings
from shared.bus.core import Delivery
from shared.bus.jetstream import JetStreamBus
from shared.bus.provision import provision
from shared.bus.servers import Servers
from shared.bus.topology import CONFIRMER
from shared.ca.chains import ChainBook
from shared.log.catalog import RESUME
from shared.log.envelope import Stored, Trusted, authenticate, authenticate_as, encode
from shared.log.events.commands import ResumeOrdered
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    EnrollmentRejected,
)
from shared.log.reasons import Reason
from shared.log.roles import Role
from shared.log.shards import Epoch
from shared.log.stages import Stage
from shared.log.streams import OPS, enroll_stream
from shared.log.subjects import EnrollmentId
from shared.runtime.live import Live
from shared.runtime.process import background, now
from shared.runtime.resuming import ResumeConsumer
from shared.runtime.worker import Job, working
from tests.support import pki
from tests.support.intune import TENANT, Intune, Journal, intune_access, intune_csr
from tests.support.messages import Identity, device_csr, identity
from tests.support.nats import NatsServer, nats_server
from tests.support.world import (
    ACCESS,
    ISSUER,
    ISSUING,
    NANOSECONDS,
    OPENING,
    OPENING_ID,
    OPERATOR,
    PROFILE,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    enrollment_of,
    policy,
    requested,
)

BUS = Servers.of("nats://127.0.0.1:4222")
EPOCHS = (Epoch(0, ("0",)),)
STREAM = enroll_stream("0")
SECONDS = 30.0
IMPATIENT = Patience(pause=0.05, delays=(0.2, 0.4, 0.4, 0.4), overtaken=0.0)


@dataclass
class Log:
    """A provisioned server, a CA, and a connection for each role."""

    server: NatsServer
    engine: Engine
    ra: Identity
    ca: LocalCa
    buses: dict[Role, JetStreamBus] = field(default_factory=dict)
    requests: list[EnrollmentId] = field(default_factory=list)

    async def connect(self) -> None:
        roles = (Role.GATEWAY, Role.VALIDATOR, Role.ISSUER, Role.AUDIT)
        self.buses = {role: await self.server.connect(role) for role in roles}

    async def request(self, csr_of: Callable[[Identity], bytes] = device_csr) -> EnrollmentId:
        """Append a new device's request, as a gateway does."""
        device = identity("device", 100 + len(self.requests))
        csr = csr_of(device)
        enrollment = enrollment_of(device, csr)
        subject = enrollment.subject(Stage.REQUEST)
        await self.buses[Role.GATEWAY].append(
            subject, encode(requested(device, self.ra, enrollment, csr=csr))
        )
        self.requests.append(enrollment)
        return enrollment

    async def pass_over(self, role: Role, durable: str = "") -> None:
        """Have a role's consumer done with its next message without handling it."""
        got: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        durable = durable or role.value
        consumption = await self.buses[role].consume(STREAM, durable, got.set_result, 1)
        await (await asyncio.wait_for(got, SECONDS)).ack()
        await consumption.stop()

    async def found(self, subject: str, stream: str = STREAM) -> Stored | None:
        return await self.buses[Role.AUDIT].get_last_or_leader(stream, subject)

    async def wait(self, subject: str, stream: str = STREAM) -> Stored:
        """The message on a subject, when it is there."""
        async with asyncio.timeout(SECONDS):
            while (stored := await self.found(subject, stream)) is None:
                await asyncio.sleep(0.02)
        return stored

    async def end(self, enrollment: EnrollmentId, stage: Stage, trusted: Trusted) -> object:
        return authenticate(await self.wait(enrollment.subject(stage)), trusted, stage)

    def issuing(self) -> IssuerSettings:
        return IssuerSettings(
            BUS, "", EPOCHS, ISSUING, TRUSTED_VALIDATORS, TRUSTED_ISSUERS, TRUSTED_OPERATORS,
            {}, {ISSUER: LocalConnector(self.ca)}, 8,
        )  # fmt: skip

    async def orders(self) -> list[ResumeOrdered]:
        """Every order to resume, in the order of the log."""
        found: list[ResumeOrdered] = []
        position = 0
        bus = self.buses[Role.AUDIT]
        while stored := await bus.get_next_or_leader(OPS, RESUME.wildcard(), position + 1):
            position = stored.sequence
            found.append(authenticate_as(ResumeOrdered, stored, TRUSTED_OPERATORS))
        return found


@dataclass
class Failing(RequestConsumer):
    """A validator with a bug that one request meets."""

    meets: EnrollmentId | None = None

    async def handle(self, stored: Stored) -> None:
        if self.meets is not None and stored.subject.startswith(self.meets.prefix()):
            raise RuntimeError
        await super().handle(stored)


@asynccontextmanager
async def validators(log: Log, meets: EnrollmentId | None = None) -> AsyncIterator[None]:
    """The validator, until the block ends."""
    bus, pin = log.buses[Role.VALIDATOR], log.ca.pin
    settings = ValidatorSettings(
        BUS, "", EPOCHS, VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS, TRUSTED_OPERATORS,
        {OPENING_ID: OPENING}, None, {PROFILE: policy(ca_spki_sha256=(pin,))}, {PROFILE: ACCESS}, 8,
    )  # fmt: skip
    chains = ChainBook.of(bus, settings.chains())
    await chains.start()
    consumer = Failing(Evaluator(bus, Live(settings), chains), meets)
    resuming = ResumeConsumer(bus, Stage.VERDICT, consumer, lambda: settings.operators)
    jobs = [
        Job(STREAM, consumer.handle, consumer.give_up),
        Job(OPS, resuming.handle, resuming.give_up),
    ]
    async with working(bus, Role.VALIDATOR, jobs, 8):
        yield
    chains.stop()


@asynccontextmanager
async def confirming(log: Log, journal: Journal, *, skip: bool) -> AsyncIterator[None]:
    """A validator whose profile has a connection to Intune; with `skip` it confirms nothing."""
    bus, pin = log.buses[Role.VALIDATOR], log.ca.pin
    policies = {PROFILE: policy(ca_spki_sha256=(pin,), connection=TENANT, withheld=True)}
    settings = ValidatorSettings(
        BUS, "", EPOCHS, VALIDATOR, TRUSTED_VALIDATORS, TRUSTED_ISSUERS, TRUSTED_OPERATORS,
        {OPENING_ID: OPENING}, None, policies, {PROFILE: intune_access()}, 8,
    )  # fmt: skip
    chains = ChainBook.of(bus, settings.chains())
    await chains.start()
    connections = {TENANT: cast("Microsoft", Intune(journal))}
    evaluator = Evaluator(bus, Live(settings), chains, connections)
    consumer, confirmer = RequestConsumer(evaluator), Confirmer(evaluator, connections, "a", now)
    resuming = Resuming.of(bus, consumer, confirmer, lambda: settings.operators)
    jobs = [
        Job(STREAM, consumer.handle, consumer.give_up),
        Job(OPS, resuming.handle, resuming.give_up),
    ]
    if not skip:
        jobs.append(Job(STREAM, confirmer.handle, confirmer.give_up, CONFIRMER))
    async with working(bus, Role.VALIDATOR, jobs, 8):
        yield
    chains.stop()


@asynccontextmanager
async def issuers(log: Log) -> AsyncIterator[None]:
    """The issuer, until the block ends."""
    bus, settings = log.buses[Role.ISSUER], log.issuing()
    live = Live(settings)
    consumer = VerdictConsumer(bus, live, now)
    revoking = RevocationConsumer(
        bus, live, CrlKeeper(bus, live, now), Responder(bus, live, now, "test")
    )
    resuming = ResumeConsumer(bus, Stage.OUTCOME, consumer, lambda: settings.operators)
    orders = Commands(revoking, OrphanConsumer(bus, live), resuming)
    jobs = [Job(STREAM, consumer.handle, consumer.give_up), Job(OPS, orders.handle, orders.give_up)]
    async with working(bus, Role.ISSUER, jobs, 8):
        yield


@asynccontextmanager
async def auditing(log: Log) -> AsyncIterator[Sweeper]:
    """The audit service's record, and a sweeper that does not run yet."""
    bus = log.buses[Role.AUDIT]
    recorders = [StreamRecorder(bus, log.engine, stream, 100) for stream in (STREAM, OPS)]
    for recorder in recorders:
        await recorder.start()
    yield Sweeper(bus, log.engine, OPERATOR, TRUSTED_VALIDATORS, now, IMPATIENT)
    for recorder in recorders:
        await recorder.stop()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    engine = open_engine(f"sqlite:///{tmp_path}/audit.db")
    migrate(engine)
    ca = pki.local_ca(ec.generate_private_key(ec.SECP256R1()))
    with nats_server(tmp_path) as server:
        await server.provision()
        found = Log(server, engine, identity("RA", 0x11), ca)
        await found.connect()
        await publish_chains(found.buses[Role.ISSUER], found.issuing())
        yield found
        for bus in found.buses.values():
            await bus.close()
    engine.dispose()


async def test_a_request_that_no_validator_is_handed_ends_with_a_certificate(log: Log) -> None:
    lost = await log.request()
    await log.pass_over(Role.VALIDATOR)
    async with validators(log), issuers(log), auditing(log) as sweeper, background(sweeper.run()):
        younger = await log.request()
        ends = [await log.end(each, Stage.OUTCOME, TRUSTED_ISSUERS) for each in (younger, lost)]

    assert all(isinstance(end, CertificateIssued) for end in ends)
    first, *_ = await log.orders()
    assert (first.enrollment, first.stage, first.number) == (lost.prefix(), Stage.VERDICT, 0)


async def test_an_approval_that_no_issuer_is_handed_ends_with_a_certificate(log: Log) -> None:
    async with validators(log), auditing(log) as sweeper:
        lost = await log.request()
        await log.wait(lost.subject(Stage.VERDICT))
        await log.pass_over(Role.ISSUER)
        async with issuers(log), background(sweeper.run()):
            younger = await log.request()
            ends = [await log.end(each, Stage.OUTCOME, TRUSTED_ISSUERS) for each in (younger, lost)]

    assert all(isinstance(end, CertificateIssued) for end in ends)
    first, *_ = await log.orders()
    assert (first.enrollment, first.stage, first.number) == (lost.prefix(), Stage.OUTCOME, 0)


async def test_a_certificate_that_no_confirmer_is_handed_is_confirmed_in_the_end(
    log: Log,
) -> None:
    """Intune is notified once of it, as of the younger one that overtook it."""
    journal, seed = Journal(), log.server.seeds[Role.PROVISIONER]
    await provision(Servers.of(log.server.url), seed, ["0"], 1, confirmed=[PROFILE])
    async with issuers(log), auditing(log) as sweeper:
        async with confirming(log, journal, skip=True):
            lost = await log.request(intune_csr)
            await log.wait(lost.subject(Stage.OUTCOME))
            for _ in (Stage.VERDICT, Stage.OUTCOME):
                await log.pass_over(Role.VALIDATOR, CONFIRMER)
        async with confirming(log, journal, skip=False), background(sweeper.run()):
            younger = await log.request(partial(intune_csr, password="B"))
            stage, trusted = Stage.CONFIRMATION, TRUSTED_VALIDATORS
            ends = [await log.end(each, stage, trusted) for each in (younger, lost)]

    assert all(isinstance(end, CertificateConfirmed) for end in ends)
    serials = [int(end.serial, 16) for end in ends if isinstance(end, CertificateConfirmed)]
    assert sorted(journal.succeeded) == sorted(serials)
    assert len(set(serials)) == 2
    first, *_ = await log.orders()
    assert (first.enrollment, first.stage, first.number) == (lost.prefix(), stage, 0)


async def test_a_request_that_fails_each_time_is_ended_by_the_last_order(log: Log) -> None:
    lost = await log.request()
    await log.pass_over(Role.VALIDATOR)
    async with (
        validators(log, meets=lost),
        issuers(log),
        auditing(log) as sweeper,
        background(sweeper.run()),
    ):
        await log.request()
        end = await log.end(lost, Stage.VERDICT, TRUSTED_VALIDATORS)

    assert isinstance(end, EnrollmentRejected)
    assert end.reason is Reason.POISON
    assert [(each.number, each.give_up) for each in await log.orders()] == [
        (0, False), (1, False), (2, False), (3, True),
    ]  # fmt: skip


async def test_requests_that_wait_for_an_absent_role_get_no_orders(log: Log) -> None:
    async with auditing(log) as sweeper, issuers(log):
        waiting = [await log.request() for _ in range(3)]
        async with asyncio.timeout(SECONDS):
            while position(log.engine, STREAM) < len(waiting):
                await asyncio.sleep(0.02)
        newest = await log.wait(waiting[-1].subject(Stage.REQUEST))
        sweeper.clock = lambda: newest.time / NANOSECONDS + 3600
        assert await sweeper.sweep() == 0

        async with validators(log):
            for each in waiting:
                await log.end(each, Stage.OUTCOME, TRUSTED_ISSUERS)
    assert await log.orders() == []
