"""A validator without its worker, on the bus in memory, and what the log tells it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.local import LocalCa
from services.validator.access import Access
from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.gates import Policy
from services.validator.settings import Settings
from shared.bus.servers import Servers
from shared.ca.chains import ChainBook
from shared.log.envelope import Message, Stored, authenticate, encode
from shared.log.events.certificates import CaChain
from shared.log.events.enrollment import EnrollmentApproved, EnrollmentRejected
from shared.log.shards import Epoch
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, chain_subject
from shared.runtime.live import Live
from tests.fakes.memory_bus import MemoryBus
from tests.support import pki
from tests.support.messages import Identity, device_csr
from tests.support.world import (
    ACCESS,
    ISSUER,
    OPENING,
    OPENING_ID,
    PROFILE,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    Clock,
    append,
    enrollment_of,
    memory_bus,
    messages_of,
    policy,
    requested,
    until,
)


@dataclass
class World:
    """A validator, its log, and what it hints to the gateway."""

    bus: MemoryBus
    clock: Clock
    ca: LocalCa
    consumer: RequestConsumer
    device: Identity
    ra: Identity
    hints: list[tuple[str, Message]] = field(default_factory=list)

    @property
    def evaluator(self) -> Evaluator:
        return self.consumer.evaluator

    @property
    def enrollment(self) -> EnrollmentId:
        return enrollment_of(self.device, device_csr(self.device))

    @property
    def policy(self) -> Policy:
        return self.evaluator.live.current.policies[PROFILE]

    def allow(self, **changes: Any) -> None:
        """Alter the profile's policy."""
        policies = {PROFILE: replace(self.policy, **changes)}
        self.evaluator.live.current = replace(self.evaluator.live.current, policies=policies)

    def accept(self, access: Access) -> None:
        """Let these verifiers judge."""
        self.evaluator.live.current = replace(self.evaluator.live.current, access={PROFILE: access})

    async def request(
        self,
        profile: str = PROFILE,
        *,
        by: Identity | None = None,
        csr: bytes | None = None,
        renews: bytes = b"",
    ) -> Stored:
        """The event of a request, as a gateway appends it."""
        signer, asked = by or self.device, csr or device_csr(self.device)
        enrollment = enrollment_of(signer, asked, profile=profile, renews=renews)
        event = requested(signer, self.ra, enrollment, csr=asked)
        return await append(self.bus, enrollment.subject(Stage.REQUEST), event)

    def verdicts(self) -> list[Stored]:
        return messages_of(self.bus, "ENROLL_0", ".verdict")

    def verdict(self, request: Stored) -> EnrollmentApproved | EnrollmentRejected:
        """The one verdict there is, authentic for this request."""
        (stored,) = self.verdicts()
        event = authenticate(stored, TRUSTED_VALIDATORS, Stage.VERDICT, request.sha256())
        assert isinstance(event, EnrollmentApproved | EnrollmentRejected)
        return event


@asynccontextmanager
async def validating(
    device: Identity, ra: Identity, ca_key: ec.EllipticCurvePrivateKey, **changes: Any
) -> AsyncIterator[World]:
    """A world whose validator has read the CA chain; `changes` are of the profile's policy."""
    clock, ca = Clock(), pki.local_ca(ca_key)
    bus = memory_bus(clock)
    settings = Settings(
        servers=Servers.of("nats://127.0.0.1:4222"),
        nkey_seed="",
        epochs=(Epoch(0, ("0",)),),
        signer=VALIDATOR,
        validators=TRUSTED_VALIDATORS,
        issuers=TRUSTED_ISSUERS,
        operators=TRUSTED_OPERATORS,
        opening_keys={OPENING_ID: OPENING},
        csr_recipient=None,
        policies={PROFILE: policy(ca_spki_sha256=(ca.pin,), **changes)},
        access={PROFILE: ACCESS},
        concurrency=8,
    )
    chains = ChainBook.of(bus, [(ISSUER, (ca.pin,))])
    found = World(
        bus, clock, ca, RequestConsumer(Evaluator(bus, Live(settings), chains)), device, ra
    )
    await bus.on_hint("gw.*", lambda s, p, h: found.hints.append((s, Message(p, dict(h)))))
    await bus.put(chain_subject(ISSUER), encode(CaChain(certificates=ca.chain)))
    await chains.start()
    await until(lambda: not chains.missing())
    yield found
    chains.stop()
