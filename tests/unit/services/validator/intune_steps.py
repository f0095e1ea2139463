"""A validator's and an issuer's part in an enrollment with Intune, on the bus in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.local import LocalConnector
from services.issuer.consumer import VerdictConsumer
from services.validator.confirmation import Confirmer
from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.microsoft.calls import Microsoft
from shared.bus.core import Bus, BusUnavailableError
from shared.log.envelope import Stored, authenticate, authenticate_as
from shared.log.events.commands import WithdrawalOrdered
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
)
from shared.log.stages import Stage
from shared.log.streams import OPS, REPLAYS
from shared.log.subjects import EnrollmentId, csr_token, transaction_token
from shared.runtime.live import Live
from shared.runtime.worker import DeferredError
from tests.fakes.bus_through import BusThrough, Step
from tests.support.intune import (
    ANOTHER_TENANT,
    TENANT,
    Intune,
    Journal,
    intune_access,
    intune_csr,
    nothing,
)
from tests.support.messages import (
    PRINTABLE,
    Identity,
    cms_attributes,
    enveloped,
    recipient,
    scep_attributes,
    signed,
    spki,
    tlv,
)
from tests.support.validators import World, validating
from tests.support.world import (
    PROFILE,
    TRUSTED_ISSUERS,
    TRUSTED_VALIDATORS,
    append,
    csr_info,
    messages_of,
    requested,
    turn,
)
from tests.unit.services.issuer.issuers import settings

FIRST: Final = "validator-0"
OTHER: Final = "validator-1"
Handle = Callable[[], Awaitable[object]]
Confirmation = CertificateConfirmed | ConfirmationFailed


class DiedError(BaseException):
    """Kill -9: nothing handles it."""


@dataclass
class Gate:
    """A step that waits to be opened, once; `skipped` calls pass before."""

    skipped: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> None:
        self.skipped -= 1
        if self.skipped == -1:
            self.reached.set()
            await self.open.wait()


@dataclass
class Steps:
    """The log of a profile with a connection, and what each service does about an enrollment."""

    world: World
    journal: Journal = field(default_factory=Journal)

    def validator(self, step: Step = nothing) -> RequestConsumer:
        return RequestConsumer(self._evaluator(step))

    def issuer(self, step: Step = nothing) -> VerdictConsumer:
        live = Live(settings(LocalConnector(self.world.ca)))
        return VerdictConsumer(self._bus(step), live, self.world.clock)

    def confirmer(self, step: Step = nothing, name: str = FIRST) -> Confirmer:
        evaluator = self._evaluator(step)
        return Confirmer(evaluator, evaluator.connections, name, self.world.clock)

    def hold(self, confirmer: Confirmer, *, sent: bool) -> "Gate":
        """Stop a confirmer in its call to Intune: before it is carried out, or after."""
        gate = Gate(skipped=1 if sent else 0)
        confirmer.connections = {TENANT: cast("Microsoft", Intune(self.journal, gate))}
        return gate

    def _bus(self, step: Step) -> Bus:
        return cast("Bus", BusThrough(self.world.bus, step))

    def _evaluator(self, step: Step) -> Evaluator:
        known = self.world.evaluator
        intune = cast("Microsoft", Intune(self.journal, step))
        connections = {TENANT: intune, ANOTHER_TENANT: intune}
        live = Live(known.live.current)
        return Evaluator(self._bus(step), live, known.chains, connections, self.world.clock)

    # What a device asks for

    async def request(self, transaction: str = "one", password: str = "A") -> Stored:
        """The event of a request with a challenge of its own, or a static password."""
        world = self.world
        asked = intune_csr(world.device, password)
        content = enveloped(asked, recipient(world.ra))
        name = tlv(PRINTABLE, transaction.encode())
        attributes = [*scep_attributes(transaction_id=name), *cms_attributes(content)]
        key = spki(world.device.key.public_key())
        enrollment = EnrollmentId(
            "0",
            PROFILE,
            transaction_token(PROFILE, transaction.encode(), key),
            csr_token(csr_info(asked), b""),
            0,
        )
        event = msgspec.structs.replace(
            requested(world.device, world.ra, enrollment, csr=asked),
            pki_message=signed(content, world.device, attributes),
            transaction_id=transaction,
        )
        return await append(world.bus, enrollment.subject(Stage.REQUEST), event)

    async def issued(self, transaction: str = "one", password: str = "A") -> Stored:
        """The outcome of a request, which no confirmer has seen yet."""
        request = await self.request(transaction, password)
        await self.validator().handle(request)
        await self.issuer().handle(self.of(request, Stage.VERDICT))
        return self.of(request, Stage.OUTCOME)

    # What became of it

    def stored(self, about: Stored, stage: Stage) -> list[Stored]:
        """The events of a stage of the same enrollment: one or none."""
        place = f"{about.subject.rpartition('.')[0]}.{stage.value}"
        return [s for s in messages_of(self.world.bus, "ENROLL_0") if s.subject == place]

    def of(self, about: Stored, stage: Stage) -> Stored:
        """The event of a stage of the same enrollment."""
        (found,) = self.stored(about, stage)
        return found

    def certificate(self, about: Stored) -> CertificateIssued:
        event = authenticate(self.of(about, Stage.OUTCOME), TRUSTED_ISSUERS, Stage.OUTCOME)
        assert isinstance(event, CertificateIssued)
        assert event.withheld
        return event

    def confirmation(self, about: Stored) -> Confirmation:
        stored = self.of(about, Stage.CONFIRMATION)
        event = authenticate(stored, TRUSTED_VALIDATORS, Stage.CONFIRMATION)
        assert isinstance(event, CertificateConfirmed | ConfirmationFailed)
        assert event.serial == self.certificate(about).serial
        return event

    def withdrawn(self) -> list[str]:
        """The serial numbers that are ordered to be revoked."""
        orders = messages_of(self.world.bus, OPS)
        found = [s for s in orders if s.subject.startswith("ops.withdraw.")]
        return [authenticate_as(WithdrawalOrdered, s, TRUSTED_VALIDATORS).serial for s in found]

    def begun(self) -> bool:
        """Whether a validator has recorded that it is about to notify Intune."""
        return bool([s for s in messages_of(self.world.bus, REPLAYS) if "notice" in s.subject])

    def check(self, about: Stored) -> bool:
        """Whether the device gets its certificate; Intune and the revocations agree with that.

        Intune was notified once of a certificate that is given out. One that is not is revoked.
        """
        event, serial = self.confirmation(about), self.certificate(about).serial
        notified = self.journal.succeeded.count(int(serial, 16))
        if isinstance(event, CertificateConfirmed):
            assert notified == 1
            assert self.withdrawn() == []
            return True
        assert notified <= 1
        assert event.withdrawn
        assert self.withdrawn() == [serial]
        return False


async def settle(steps: Steps, handle: Handle) -> None:
    """Deliver a message until it is settled; time passes only as it asks for."""
    for _ in range(20):
        try:
            await handle()
        except DeferredError as error:
            steps.world.clock.seconds += error.wait or 1.0
            await turn()
        except BusUnavailableError:
            await turn()
        else:
            return
    raise AssertionError("it is deferred for ever")


@asynccontextmanager
async def stepping(
    device: Identity, ra: Identity, key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Steps]:
    """A log and its services; `device` asks for all certificates."""
    async with validating(device, ra, key, connection=TENANT, withheld=True) as world:
        world.accept(intune_access())
        yield Steps(world)
