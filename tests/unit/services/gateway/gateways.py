"""A gateway's enroller on the bus in memory, a device, and whoever answers in the others' stead."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from services.gateway.enroll import Enroller
from services.gateway.lookups import Lookups
from services.gateway.outcomes import Outcomes
from services.gateway.ra import RaPair, assemble
from services.gateway.settings import Limits, Profile, Settings
from services.issuer.certificate import certificate
from services.issuer.connectors.local import LocalCa
from shared.bus.core import Delivery
from shared.bus.servers import Servers
from shared.bus.topology import gateway_hints
from shared.ca.chains import Chain, ChainBook
from shared.config.addresses import Networks
from shared.log.envelope import SUBJECT, EventSigner, Message, Stored, decode, sign
from shared.log.events.enrollment import (
    CertificateIssued,
    EnrollmentHeld,
    EnrollmentRejected,
    IssuanceFailed,
)
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.roles import Role
from shared.log.shards import Epoch
from shared.log.stages import Stage
from shared.log.streams import enroll_stream
from shared.log.subjects import EnrollmentId, parse_subject
from shared.runtime.live import Live
from shared.scep.certificate import read_certificate
from shared.scep.certrep import CertRep, read_certificates, read_reply
from shared.scep.envelope import read_envelope
from shared.scep.pkimessage import unwrap_content_key
from tests.fakes.memory_bus import MemoryBus
from tests.support import pki
from tests.support.messages import (
    PRINTABLE,
    SEQ,
    Identity,
    cms_attributes,
    device_csr,
    enveloped,
    recipient,
    scep_attributes,
    signed,
    spki,
    tlv,
)
from tests.support.templates import EKU, KEY_USAGE, template
from tests.support.world import (
    GATEWAY,
    ISSUER,
    ISSUING,
    NOW,
    OPENING,
    OPENING_ID,
    PROFILE,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    Clock,
    append,
    approved,
    enrollment_of,
    facts,
    memory_bus,
    messages_of,
    pki_message,
)


def profile(ra: Identity, ca: LocalCa, **changes: Any) -> Profile:
    values: dict[str, Any] = {
        "name": PROFILE,
        "issuer": ISSUER,
        "ca_spki_sha256": (ca.pin,),
        "legacy": False,
        "include_chain": False,
        "reply_budget": 20.0,
        "ra": assemble([RaPair(ra.x509, ra.key, signs=True, decrypts=True)], NOW),
    }
    return Profile(**(values | changes))


def settings(
    profiles: dict[str, Profile], epochs: tuple[Epoch, ...] = (Epoch(0, ("0",)),)
) -> Settings:
    return Settings(
        servers=Servers.of("nats://127.0.0.1:4222"),
        nkey_seed="",
        epochs=epochs,
        retry_window=86400,
        validators=TRUSTED_VALIDATORS,
        issuers=TRUSTED_ISSUERS,
        operators=TRUSTED_OPERATORS,
        sealing_key=OPENING.public_key(),
        sealing_key_id=OPENING_ID,
        profiles=profiles,
        default_profile=PROFILE,
        limits=Limits(256 * 1024, 10, 10, 0.0),
        trusted_proxies=Networks(),
    )


@dataclass
class Others:
    """Validator and issuer in one: ends each request at once, in the way a test says.

    `hints` False loses every hint; `forge` signs with that key instead of the right one; `reason`
    is that of a rejection.
    """

    bus: MemoryBus
    ca: LocalCa
    device: Identity
    answer: str = "issued"
    hints: bool = True
    forge: EventSigner | None = None
    reason: Reason = Reason.SAN_NOT_ALLOWED
    seen: list[EnrollmentId] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, *shards: str) -> None:
        for shard in shards:
            await self.bus.consume(enroll_stream(shard), Role.VALIDATOR, self._on_delivery, 64)

    def _on_delivery(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._end(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self, delivery: Delivery) -> None:
        enrollment, _ = parse_subject(delivery.stored.subject)
        self.seen.append(enrollment)
        if self.answer != "nothing":
            await self.end(enrollment, delivery.stored)
        await delivery.ack()

    async def end(self, enrollment: EnrollmentId, request: Stored) -> None:
        """Append the end of a request and hint it."""
        stage, message = self.message(enrollment, request)
        subject = enrollment.subject(stage)
        if stage is Stage.OUTCOME:
            await self.approve(enrollment, request, message)
        await append(self.bus, subject, message)
        if self.hints:
            hint = Message(message.payload, message.headers | {SUBJECT: subject})
            await self.bus.hint(gateway_hints(GATEWAY), hint)

    async def approve(self, enrollment: EnrollmentId, request: Stored, outcome: Message) -> None:
        """Append the verdict that comes before an outcome, unless there is one."""
        subject = enrollment.subject(Stage.VERDICT)
        if await self.bus.get_last(enroll_stream(enrollment.shard), subject):
            return
        event, sha256 = decode(outcome.payload, outcome.headers), request.sha256()
        key = spki(self.device.key.public_key())
        if isinstance(event, CertificateIssued):
            key = read_certificate(event.certificate).spki
        verdict = approved(template(self.ca.certificate, spki=key), request_sha256=sha256)
        await append(self.bus, subject, sign(verdict, subject, VALIDATOR))

    def message(self, enrollment: EnrollmentId, request: Stored) -> tuple[Stage, Message]:
        sha256 = request.sha256()
        refusal: dict[str, Any] = {"request_sha256": sha256, "detail": "because"}
        event: EnrollmentHeld | EnrollmentRejected | IssuanceFailed | CertificateIssued
        if self.answer == "held":
            stage, by = Stage.HOLD, VALIDATOR
            event = EnrollmentHeld(request_sha256=sha256, facts=facts(), gates=())
        elif self.answer == "rejected":
            reason, stage, by = self.reason, Stage.VERDICT, VALIDATOR
            event = EnrollmentRejected(reason=reason, fail_info=FAIL_INFO[reason], **refusal)
        elif self.answer == "failed":
            reason, stage, by = Reason.BEYOND_CEILING, Stage.OUTCOME, ISSUING
            event = IssuanceFailed(reason=reason, fail_info=FAIL_INFO[reason], **refusal)
        else:
            stage, by = Stage.OUTCOME, ISSUING
            event = self.issued(sha256, spki(self.device.key.public_key()))
        return stage, sign(event, enrollment.subject(stage), self.forge or by)

    def issued(self, sha256: str, key: bytes, subject: bytes | None = None) -> CertificateIssued:
        """Signed by hand: what the gateway makes of a certificate is not the issuer's business."""
        changes = {} if subject is None else {"subject": subject}
        made = template(self.ca.certificate, spki=key, extensions=(KEY_USAGE, EKU), **changes)
        draft = self.ca.draft(made, sha256)
        assert isinstance(self.ca.key, ec.EllipticCurvePrivateKey)
        signature = self.ca.key.sign(draft.tbs, ec.ECDSA(hashes.SHA256()))
        return CertificateIssued(
            request_sha256=sha256,
            issuer=ISSUER,
            serial=draft.serial.hex(),
            certificate=certificate(draft.tbs, self.ca.algorithm, signature),
            not_after=made.not_after,
        )


@dataclass
class World:
    """A device, a gateway, the log, and the others."""

    device: Identity
    ra: Identity
    ca: LocalCa
    clock: Clock
    bus: MemoryBus
    profile: Profile
    outcomes: Outcomes
    enroller: Enroller
    others: Others
    previous: tuple[LocalCa, ...] = ()

    @property
    def chain(self) -> Chain:
        previous = tuple(ca.chain[0] for ca in self.previous)
        return Chain(self.ca.chain, (self.ca.certificate,), previous)

    def roll_over(self, ca: LocalCa) -> None:
        """From now on this CA issues; the one before is the previous one."""
        self.previous = (self.ca, *self.previous)
        self.ca = self.others.ca = ca

    async def send(self, body: bytes) -> CertRep:
        return read_reply(await self.enroller.answer(self.profile, self.chain, body, "192.0.2.9"))

    async def enroll(self, csr: bytes | None = None) -> CertRep:
        return await self.send(pki_message(self.device, self.ra, csr))

    async def poll(self, device: Identity | None = None, **attributes: bytes) -> CertRep:
        content = enveloped(tlv(SEQ), recipient(self.ra))
        values = {"message_type": tlv(PRINTABLE, b"20")} | attributes
        found = [*scep_attributes(**values), *cms_attributes(content)]
        return await self.send(signed(content, device or self.device, found))

    def opened(self, reply: CertRep) -> bytes:
        """What a SUCCESS holds, opened with the device's key."""
        envelope = read_envelope(reply.signed.content)
        key = unwrap_content_key(envelope, [self.device.decryption], bytes(32))
        return envelope.decrypt(key)

    def certificate(self, reply: CertRep) -> bytes:
        """The one certificate in a SUCCESS, opened with the device's key."""
        (leaf,) = read_certificates(self.opened(reply))
        return leaf

    def enrollment(self, **options: Any) -> EnrollmentId:
        return enrollment_of(self.device, device_csr(self.device), **options)

    def ends(self) -> list[Stored]:
        """Verdicts and outcomes."""
        found = messages_of(self.bus, enroll_stream("0"))
        return [s for s in found if s.subject.endswith((".verdict", ".outcome"))]

    def requests(self, shard: str = "0") -> list[Stored]:
        return messages_of(self.bus, enroll_stream(shard), ".request")


async def make_world(
    device: Identity,
    ra: Identity,
    key: Any,
    *,
    epochs: tuple[Epoch, ...] = (Epoch(0, ("0",)),),
    shards: tuple[str, ...] = ("0",),
    **changes: Any,
) -> World:
    clock, ca = Clock(), pki.local_ca(key)
    bus, served = memory_bus(clock, shards), profile(ra, ca, **changes)
    found = settings({PROFILE: served}, epochs)
    live = Live(found)
    outcomes = Outcomes(bus, live, ChainBook.of(bus, found.chains()))
    await bus.on_hint(gateway_hints(GATEWAY), outcomes.on_hint)
    enroller = Enroller(bus, live, outcomes, Lookups(bus, live), GATEWAY, clock)
    others = Others(bus, ca, device)
    await others.start(*shards)
    return World(device, ra, ca, clock, bus, served, outcomes, enroller, others)
