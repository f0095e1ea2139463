"""An issuer whose CA is outside, and what that CA says to an order."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.connector import (
    Order,
    Pending,
    Prepared,
    Result,
    UnknownOutcome,
)
from services.issuer.connectors.pinned import PinnedCa, PinnedCas
from services.issuer.consumer import VerdictConsumer
from shared.log.envelope import Stored, authenticate_as
from shared.log.events.certificates import OrderChanged, OrphanNoted
from shared.log.events.enrollment import CertificateOrdered, IssuanceFailed
from shared.runtime.live import Live
from shared.runtime.worker import DeferredError
from tests.plugins.registry_ca.scepstream_registry_ca import Register, RegistryConnector
from tests.support.world import ISSUER, TRUSTED_ISSUERS, messages_of
from tests.unit.services.issuer.issuers import World, make_world

LEASE: Final = 60.0
KEY: Final = ec.derive_private_key(11, ec.SECP256R1())


@dataclass(frozen=True)
class Moody(RegistryConnector):
    """The CA of the plug-in, with a mood: what it says to an order, and whether it made it."""

    says: list[Result | BaseException] = field(default_factory=list)
    finds: list[Result] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    makes: bool = True

    async def issue(self, order: Order, prepared: Prepared) -> Result:
        self.calls.append("issue")
        made = await super().issue(order, prepared) if self.makes else UnknownOutcome()
        return self._said(made)

    async def find(self, order: Order, handle: str = "") -> Any:
        if "issue" not in self.calls or self.calls[-1] != "issue":
            self.calls.append("find")
        return self.finds.pop(0) if self.finds else await super().find(order, handle)

    def _said(self, made: Result) -> Result:
        said = self.says.pop(0) if self.says else made
        if isinstance(said, BaseException):
            raise said
        return said


@dataclass
class Outside:
    """An issuer whose CA is outside."""

    world: World
    connector: Moody

    async def handle(self, verdict: Stored) -> None:
        await self.world.consumer.handle(verdict)

    def another(self) -> VerdictConsumer:
        """Another issuer, or this one after its end."""
        return VerdictConsumer(self.world.bus, Live(self.world.settings), self.world.clock)

    def orders(self) -> list[CertificateOrdered]:
        found = messages_of(self.world.bus, "ENROLL_0", ".order")
        return [authenticate_as(CertificateOrdered, each, TRUSTED_ISSUERS) for each in found]

    def steps(self) -> list[OrderChanged]:
        found = [m for m in messages_of(self.world.bus, "CERTS", "") if m.subject[:6] == "order."]
        return [authenticate_as(OrderChanged, each, TRUSTED_ISSUERS) for each in found]

    def orphans(self) -> list[OrphanNoted]:
        found = [m for m in messages_of(self.world.bus, "CERTS", "") if m.subject[:7] == "orphan."]
        return [authenticate_as(OrphanNoted, each, TRUSTED_ISSUERS) for each in found]

    def use(self, **changes: Any) -> None:
        """Alter the connector."""
        self.connector = replace(self.connector, **changes)
        settings = replace(self.world.settings, issuers={ISSUER: self.connector})
        self.world.consumer.live.current = settings

    def made(self) -> int:
        with self.connector.register.open() as connection:
            return int(connection.execute("SELECT count(*) FROM certificates").fetchone()[0])

    def revoked(self) -> list[str]:
        """The serial numbers that the CA revoked."""
        with self.connector.register.open() as connection:
            return [row[0] for row in connection.execute("SELECT serial FROM revocations")]

    async def pend(self) -> Stored:
        """A verdict whose order the CA has, and has not decided; its lease has ended."""
        self.connector.says.append(Pending())
        verdict = await self.world.verdict()
        with pytest.raises(DeferredError):
            await self.handle(verdict)
        self.world.clock.seconds += LEASE + 2
        return verdict

    def failure(self) -> IssuanceFailed:
        found = self.world.outcome()
        assert isinstance(found, IssuanceFailed)
        return found


async def make_outside(folder: Path) -> Outside:
    """A world with one external CA."""
    world = await make_world(KEY)
    register = Register(folder / "register.db")
    with register.open():
        pass
    cas = PinnedCas(PinnedCa(world.ca.chain, world.ca.ceilings))
    connector = Moody(cas, LEASE, register, KEY)
    world.consumer.live.current = replace(world.settings, issuers={ISSUER: connector})
    return Outside(world, connector)
