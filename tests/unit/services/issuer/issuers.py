"""An issuer without its workers, on the bus in memory."""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from services.issuer.connectors.local import LocalCa, LocalConnector
from services.issuer.consumer import VerdictConsumer
from services.issuer.settings import Settings
from shared.bus.servers import Servers
from shared.log.envelope import Message, Stored, authenticate, authenticate_as
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import CertificateIssued, IssuanceFailed
from shared.log.shards import Epoch
from shared.log.stages import Stage
from shared.log.streams import enroll_stream, stream_of
from shared.log.subjects import EnrollmentId
from shared.runtime.live import Live
from tests.fakes.memory_bus import MemoryBus
from tests.support import pki
from tests.support.templates import template
from tests.support.world import (
    ISSUER,
    ISSUING,
    PROFILE,
    REQUEST,
    REQUEST_SHA256,
    REQUEST_TRANSACTION,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    Clock,
    append,
    approved,
    memory_bus,
    messages_of,
    signed_event,
)

ENROLLMENT: Final = EnrollmentId("0", PROFILE, REQUEST_TRANSACTION, "csr", 0)
VERDICT: Final = ENROLLMENT.subject(Stage.VERDICT)


def settings(authorities: LocalConnector) -> Settings:
    return Settings(
        servers=Servers.of("nats://127.0.0.1:4222"),
        nkey_seed="",
        epochs=(Epoch(0, ("0",)),),
        signer=ISSUING,
        validators=TRUSTED_VALIDATORS,
        trusted_issuers=TRUSTED_ISSUERS,
        operators=TRUSTED_OPERATORS,
        opening_keys={},
        issuers={ISSUER: authorities},
        concurrency=8,
    )


@dataclass
class World:
    """An issuer's log, clock and consumer, and what it hints to gateways."""

    bus: MemoryBus
    ca: LocalCa
    clock: Clock
    consumer: VerdictConsumer
    hints: list[tuple[str, Message]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.consumer.live.current

    def use(self, **changes: Any) -> None:
        """Alter the issuer's CAs."""
        authorities = replace(self.settings.issuers[ISSUER], **changes)
        self.consumer.live.current = settings(authorities)

    async def verdict(
        self,
        event: Any = None,
        message: Message | None = None,
        enrollment: EnrollmentId = ENROLLMENT,
        request: Message | None = REQUEST,
    ) -> Stored:
        """A verdict as the log holds it; its request stands there before, unless it is None."""
        place = enrollment.subject(Stage.REQUEST)
        if request and await self.bus.get_last(enroll_stream(enrollment.shard), place) is None:
            await append(self.bus, place, request)
        event = event or approved(template(self.ca.certificate))
        subject = enrollment.subject(Stage.VERDICT)
        return await append(self.bus, subject, message or signed_event(event, subject, VALIDATOR))

    def outcomes(self) -> list[Stored]:
        return messages_of(self.bus, "ENROLL_0", ".outcome")

    def records(self) -> list[Stored]:
        return messages_of(self.bus, "CERTS")

    def record(self, subject: str) -> CertificateRecorded:
        """The authentic record under this subject."""
        (stored,) = (s for s in self.records() if s.subject == subject)
        return authenticate_as(CertificateRecorded, stored, TRUSTED_ISSUERS)

    def outcome(self) -> CertificateIssued | IssuanceFailed:
        """The one outcome there is, authentic for the request."""
        (stored,) = self.outcomes()
        return self.outcome_of(stored.subject)

    def outcome_of(
        self, subject: str, request_sha256: str = REQUEST_SHA256
    ) -> CertificateIssued | IssuanceFailed:
        """The outcome under this subject, authentic for the request."""
        (stored,) = (s for s in self.outcomes() if s.subject == subject)
        event = authenticate(stored, TRUSTED_ISSUERS, Stage.OUTCOME, request_sha256)
        assert isinstance(event, CertificateIssued | IssuanceFailed)
        return event

    def replace(self, stored: Stored, message: Message) -> None:
        """Put another message in a stored one's place, as no bus would."""
        stream = stream_of(stored.subject)
        assert stream is not None
        self.bus.streams[stream].messages[stored.sequence] = replace(
            stored, payload=message.payload, headers=message.headers
        )


async def make_world(key: pki.CaKey) -> World:
    clock, ca = Clock(), pki.local_ca(key)
    bus = memory_bus(clock)
    found = World(bus, ca, clock, VerdictConsumer(bus, Live(settings(LocalConnector(ca))), clock))
    await bus.on_hint("gw.*", lambda s, p, h: found.hints.append((s, Message(p, dict(h)))))
    return found
