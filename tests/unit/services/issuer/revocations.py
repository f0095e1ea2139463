"""A keeper of CRLs and an obeyer of orders, on the bus in memory."""

from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from services.issuer.connectors.local import LocalCa, LocalConnector
from services.issuer.crl_keeper import CrlKeeper
from services.issuer.responder import Responder
from services.issuer.revocation import RevocationConsumer
from shared.ca.crls import read_crl
from shared.log.envelope import EventSigner, Stored, authenticate_as
from shared.log.events.certificates import (
    CertificateRecorded,
    CertificateStatus,
    CertificateStatusChanged,
    CrlPublished,
)
from shared.log.events.commands import CommandAnswered, RevocationOrdered, RevocationReason
from shared.log.streams import CRLS
from shared.log.subjects import (
    certificate_issued,
    certificate_status,
    revocation_answer,
    revocation_command,
)
from shared.runtime.live import Live
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    OPERATOR,
    REQUEST_SHA256,
    SERIAL,
    TRUSTED_ISSUERS,
    Clock,
    append_signed,
    memory_bus,
    messages_of,
)
from tests.unit.services.issuer.issuers import ENROLLMENT, settings

DAY: Final = 86400
KEY: Final = "11" * 32


def serial(number: int) -> str:
    """A serial number as records write it."""
    return (b"\x40" * 15 + bytes((number,))).hex()


@dataclass
class World:
    """One issuer's CAs, their CRLs and the orders to revoke."""

    bus: MemoryBus
    clock: Clock
    ca: LocalCa
    authorities: LocalConnector
    keeper: CrlKeeper
    orders: RevocationConsumer

    def another_keeper(self) -> CrlKeeper:
        return CrlKeeper(self.bus, self.keeper.live, self.clock)

    async def publish(self, ca: LocalCa | None = None) -> int:
        return await self.keeper.publish(ISSUER, self.authorities, ca or self.ca)

    def heads(self, ca: LocalCa | None = None) -> list[CrlPublished]:
        """What was announced of a CA's CRLs, oldest first, all of it authentic."""
        pin = (ca or self.ca).pin
        found = [
            s for s in messages_of(self.bus, CRLS) if s.subject.split(".")[2:4] == [pin, "head"]
        ]
        return [authenticate_as(CrlPublished, stored, TRUSTED_ISSUERS) for stored in found]

    async def crl(self, ca: LocalCa | None = None) -> x509.CertificateRevocationList:
        """The newest CRL of a CA, as other software reads it."""
        by = ca or self.ca
        stored = await read_crl(self.bus, self.heads(by)[-1], by.chain[0])
        return x509.load_der_x509_crl(stored.der)

    async def revoked(self, ca: LocalCa | None = None) -> list[str]:
        """The serials on the newest CRL."""
        return [f"{found.serial_number:x}" for found in await self.crl(ca)]

    async def issue(
        self, number: str = SERIAL, *, by: EventSigner = ISSUING, **changes: Any
    ) -> None:
        """Put a certificate on record."""
        values: dict[str, Any] = {
            "request_sha256": REQUEST_SHA256,
            "enrollment": ENROLLMENT.prefix(),
            "spki_sha256": KEY,
            "subject": "CN=device",
            "not_before": NOW,
            "not_after": NOW + DAY,
            "serial": number,
            "ca_spki_sha256": self.ca.pin,
        }
        record = CertificateRecorded(**(values | changes))
        await append_signed(self.bus, certificate_issued(ISSUER, number), record, by)

    async def revoke(
        self, number: str = SERIAL, by: EventSigner = ISSUING, place: int = 0, **changes: Any
    ) -> Stored:
        """Put a revocation on record, as another issuer would."""
        values: dict[str, Any] = {
            "request_sha256": REQUEST_SHA256,
            "serial": number,
            "ca_spki_sha256": self.ca.pin,
            "reason": RevocationReason.UNSPECIFIED,
            "revoked_at": NOW,
            "operator": "op",
            "status": CertificateStatus.REVOKED,
            "command": 0,
        }
        subject = certificate_status(ISSUER, number, place)
        event = CertificateStatusChanged(**(values | changes))
        return await append_signed(self.bus, subject, event, by)

    async def order(
        self,
        number: str = SERIAL,
        reason: RevocationReason = RevocationReason.SUPERSEDED,
        *,
        attempt: int = 0,
        by: EventSigner = OPERATOR,
        subject: str = "",
        **changes: Any,
    ) -> Stored:
        """An operator's order on the log."""
        values: dict[str, Any] = {
            "issuer": ISSUER,
            "serial": number,
            "reason": reason,
            "operator": "op",
            "attempt": attempt,
        }
        event = RevocationOrdered(**(values | changes))
        place = subject or revocation_command(event.issuer, number, attempt)
        return await append_signed(self.bus, place, event, by)

    def answer(self, order: Stored) -> CommandAnswered:
        """The one answer to an order, authentic for it."""
        place = revocation_answer(order.subject)
        (stored,) = (s for s in messages_of(self.bus, "OPS") if s.subject == place)
        event = authenticate_as(CommandAnswered, stored, TRUSTED_ISSUERS)
        assert event.request_sha256 == order.sha256()
        return event


def make_world(ca: LocalCa, *previous: LocalCa, **changes: Any) -> World:
    clock = Clock()
    bus, authorities = memory_bus(clock), LocalConnector(ca, previous, **changes)
    found = settings(authorities)
    live = Live(found)
    keeper = CrlKeeper(bus, live, clock)
    orders = RevocationConsumer(bus, live, keeper, Responder(bus, live, clock, "test"))
    return World(bus, clock, ca, authorities, keeper, orders)
