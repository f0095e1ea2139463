"""One profile's world on the bus in memory: fixed keys, a clock, requests, verdicts."""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from prometheus_client import REGISTRY

from services.issuer.connectors.local import LocalCa
from services.validator.gates import Policy
from shared.bus.topology import consumers, streams
from shared.log.envelope import SIGNATURE, EventSigner, Message, Stored, encode, sign, signed_bytes
from shared.log.events.base import EventPayload
from shared.log.events.enrollment import EnrollmentApproved, EnrollmentRequested, Facts
from shared.log.roles import Role
from shared.log.seal import seal, sealing_key_id
from shared.log.stages import Stage
from shared.log.streams import enroll_stream, stream_of
from shared.log.subjects import EnrollmentId, csr_token, transaction_token
from shared.scep.asn1 import SEQUENCE, Der
from tests.fakes.memory_bus import MemoryBus, MemoryConsumer, MemoryStream
from tests.support import pki
from tests.support.accesses import accepting
from tests.support.messages import (
    TRANSACTION,
    Identity,
    cipher_key,
    device_csr,
    enveloped,
    identity,
    recipient,
    signed,
    spki,
)

NOW: Final = 1_767_225_600  # 2026-01-01
PROFILE: Final = "demo"
ISSUER: Final = "local"
GATEWAY: Final = "gw-1"
PIN: Final = "ab" * 32
SERIAL: Final = "40" * 16
NANOSECONDS: Final = 1_000_000_000


def signer(seed: bytes) -> EventSigner:
    return EventSigner.of(Ed25519PrivateKey.from_private_bytes(seed * 32))


VALIDATOR: Final = signer(b"v")
ISSUING: Final = signer(b"i")
OPERATOR: Final = signer(b"a")
STRANGER: Final = signer(b"x")
TRUSTED_VALIDATORS: Final = {VALIDATOR.id: VALIDATOR.key.public_key()}
TRUSTED_ISSUERS: Final = {ISSUING.id: ISSUING.key.public_key()}
TRUSTED_OPERATORS: Final = {OPERATOR.id: OPERATOR.key.public_key()}
OPENING: Final = X25519PrivateKey.from_private_bytes(b"o" * 32)
OPENING_ID: Final = sealing_key_id(OPENING.public_key())
# A stored request for tests that begin at its verdict: nobody opens it.
REQUESTER: Final = identity("device", 4711)
REQUESTED: Final = EnrollmentRequested(
    pki_message=signed(b"an envelope", REQUESTER),
    content_key=b"sealed",
    sealing_key=OPENING_ID,
    transaction_id=TRANSACTION.decode(),
    message_type=19,
    signer_sha256=hashlib.sha256(REQUESTER.der).hexdigest(),
    client_address="192.0.2.1",
    gateway=GATEWAY,
    reply_budget_ms=1000,
)
REQUEST: Final = encode(REQUESTED)
REQUEST_SHA256: Final = hashlib.sha256(REQUEST.payload).hexdigest()
REQUEST_TRANSACTION: Final = transaction_token(
    PROFILE, TRANSACTION, spki(REQUESTER.key.public_key())
)


@dataclass
class Clock:
    """Time that only a test moves."""

    seconds: float = NOW

    def __call__(self) -> float:
        return self.seconds

    def nanoseconds(self) -> int:
        return int(self.seconds * NANOSECONDS)


def memory_bus(clock: Clock | None = None, shards: Sequence[str] = ("0",)) -> MemoryBus:
    """A provisioned bus."""
    bus = MemoryBus(clock=(clock or Clock()).nanoseconds)
    for spec in streams(shards):
        bus.streams[spec.name] = MemoryStream(spec.subjects, max_age=spec.max_age)
    for consumer in consumers(shards):
        key = f"{consumer.stream}/{consumer.durable}"
        bus.consumers[key] = MemoryConsumer(consumer.stream, consumer.filters, consumer.ack_all)
    return bus


async def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Let the loop turn until the condition gives something true."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(0)
    return found


async def turn(times: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(times):
        await asyncio.sleep(0)


def settled(bus: MemoryBus, role: Role, shard: str = "0") -> bool:
    """Whether a durable has seen and settled all that it may see."""
    consumer = bus.consumers[f"{enroll_stream(shard)}/{role}"]
    seen = consumer.position >= bus.streams[consumer.stream].last
    return seen and not consumer.out and not consumer.again


def counted(metric: str, **labels: str) -> float:
    """A counter's value now."""
    return REGISTRY.get_sample_value(f"scepstream_{metric}_total", labels) or 0.0


def messages_of(bus: MemoryBus, stream: str, suffix: str = "") -> list[Stored]:
    """What a stream holds under subjects that end so."""
    return [m for m in bus.streams[stream].messages.values() if m.subject.endswith(suffix)]


ACCESS: Final = accepting(passwords=("s3cret",))


def policy(**changes: Any) -> Policy:
    """RSA and P-256 keys, clientAuth."""
    base = Policy(
        legacy=False,
        key_types=frozenset({"rsa:2048", "ec:p256"}),
        sans=frozenset({"dns", "rfc822", "uri", "ip", "upn"}),
        key_usages=("digitalSignature", "keyEncipherment"),
        extended_key_usages=("clientAuth",),
        max_ttl=365 * 86400,
        backdate=600,
        verdict_ttl=86400,
        issuer=ISSUER,
        ca_spki_sha256=(PIN,),
    )
    return replace(base, **changes)


def csr_info(csr: bytes) -> bytes:
    """The CertificationRequestInfo of a CSR."""
    return Der(csr).enter(SEQUENCE).element(SEQUENCE)


def enrollment_of(
    device: Identity,
    csr: bytes,
    *,
    profile: str = PROFILE,
    shard: str = "0",
    attempt: int = 0,
    renews: bytes = b"",
) -> EnrollmentId:
    """Where a device's request for this CSR belongs; `renews` is the serial of its certificate."""
    transaction = transaction_token(profile, TRANSACTION, spki(device.key.public_key()))
    return EnrollmentId(shard, profile, transaction, csr_token(csr_info(csr), renews), attempt)


def pki_message(device: Identity, ra: Identity, csr: bytes | None = None, **options: Any) -> bytes:
    """A PKCSReq with the content key of `cipher_key`, whoever encodes it not the product."""
    content = enveloped(device_csr(device) if csr is None else csr, recipient(ra))
    return signed(content, device, **options)


def requested(
    device: Identity, ra: Identity, enrollment: EnrollmentId, **changes: Any
) -> EnrollmentRequested:
    """The event a gateway appends; `csr`, `sealed_for`, `options` alter what it is made of."""
    csr = changes.pop("csr", None)
    sealed_for = changes.pop("sealed_for", enrollment.subject(Stage.REQUEST))
    options = changes.pop("options", {})
    values: dict[str, Any] = {
        "pki_message": pki_message(device, ra, csr, **options),
        "content_key": seal(cipher_key("aes256"), sealed_for, OPENING.public_key()),
        "sealing_key": OPENING_ID,
        "transaction_id": TRANSACTION.decode(),
        "message_type": 19,
        "signer_sha256": hashlib.sha256(device.der).hexdigest(),
        "client_address": "192.0.2.1",
        "gateway": GATEWAY,
        "reply_budget_ms": 1000,
    }
    return EnrollmentRequested(**(values | changes))


async def append(bus: MemoryBus, subject: str, event: EventPayload | Message) -> Stored:
    """Append an event and give it as the log holds it."""
    message = event if isinstance(event, Message) else encode(event)
    sequence = await bus.append(subject, message)
    stream = stream_of(subject)
    assert stream is not None
    return bus.streams[stream].messages[sequence]


def facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "subject": "CN=device",
        "sans": ("dns:device.example",),
        "key_type": "rsa",
        "key_bits": 2048,
        "spki_sha256": "11" * 32,
        "csr_sha256": "22" * 32,
        "challenge": "static",
    }
    return Facts(**(values | changes))


def approved(template: Any, **changes: Any) -> EnrollmentApproved:
    values: dict[str, Any] = {
        "request_sha256": REQUEST_SHA256,
        "gateway": GATEWAY,
        "facts": facts(),
        "gates": (),
        "template": template,
        "valid_until": NOW + 86400,
    }
    return EnrollmentApproved(**(values | changes))


def certified(device: Identity, ca: LocalCa, serial: str = SERIAL) -> Identity:
    """The same key with a certificate of this CA instead of its own."""
    made = pki.make_certificate(
        device.key.public_key(), ca.key, subject="device", serial=int(serial, 16)
    )
    return Identity(device.key, made)


def signed_event(
    event: Any, subject: str, by: EventSigner, request_sha256: str | None = None
) -> Message:
    """The event signed over the request it names, unless another is given."""
    message = sign(event, subject, by)
    if request_sha256 is not None:
        signature = by.key.sign(signed_bytes(subject, request_sha256, message.payload))
        message.headers[SIGNATURE] = base64.b64encode(signature).decode()
    return message


async def append_signed(bus: MemoryBus, subject: str, event: Any, by: EventSigner) -> Stored:
    """Append an event under this key's signature."""
    return await append(bus, subject, signed_event(event, subject, by))
