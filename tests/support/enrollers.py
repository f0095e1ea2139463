"""Devices with keys of their own, who vouches for them, and validators that judge them."""

import asyncio
import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from cli.connector.signing import ChallengeClaims, Connector
from services.validator.access import Access
from services.validator.challenges.anchors import AnchorFiles
from services.validator.challenges.device_state import DeviceStateGate
from services.validator.challenges.jws import Anchor
from services.validator.challenges.signed import SignedAccess
from services.validator.challenges.token import AnchorPool, TokenRules
from services.validator.challenges.verifier import ChallengeRequest
from services.validator.consumer import RequestConsumer
from services.validator.evaluate import Evaluator
from services.validator.facts import DecryptedRequest
from shared.bus.core import Bus
from shared.log.envelope import EventSigner, Stored, authenticate, authenticate_as
from shared.log.events.base import EventPayload
from shared.log.events.enrollment import (
    CertificateIssued,
    EnrollmentApproved,
    EnrollmentRejected,
    EnrollmentRequested,
    IssuanceFailed,
)
from shared.log.events.state import CountedEnrollment, DeviceCounted
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.seal import seal
from shared.log.stages import Stage
from shared.log.streams import DEVICES, REPLAYS
from shared.log.subjects import EnrollmentId, csr_token, parse_subject, transaction_token
from shared.x509.csr import read_csr
from tests.fakes.bus_through import BusThrough, racing
from tests.support.accesses import accepting
from tests.support.messages import (
    DEVICE_NAME,
    PRINTABLE,
    SEQ,
    TRANSACTION,
    UTF8,
    EcIdentity,
    challenge,
    cipher_key,
    cms_attributes,
    csr,
    ec_identity,
    enveloped,
    extension_request,
    oid,
    recipient,
    san,
    scep_attributes,
    signed,
    spki,
    tlv,
)
from tests.support.signing import ECDSA_OIDS, ecdsa_sign
from tests.support.validators import World
from tests.support.world import (
    GATEWAY,
    ISSUER,
    ISSUING,
    NOW,
    OPENING,
    OPENING_ID,
    PROFILE,
    SERIAL,
    TRUSTED_VALIDATORS,
    append,
    append_signed,
    csr_info,
    facts,
    messages_of,
)

DAY: Final = 86400
SUBJECT: Final = "device-guid-1"
_ECDSA: Final = tlv(SEQ, oid(ECDSA_OIDS["sha256"]))


def p256(seed: int) -> ec.EllipticCurvePrivateKey:
    """The same key in every run."""
    return ec.derive_private_key(seed, ec.SECP256R1())


CONNECTOR: Final = Connector(p256(9001), "connector-1")
OTHER_CONNECTOR: Final = Connector(p256(9002), "connector-2")


# Who vouches


def anchor(connector: Connector = CONNECTOR, not_after: int = NOW + 30 * DAY) -> Anchor:
    return Anchor(f"CN={connector.name}", NOW - DAY, not_after, connector.key.public_key())


def by_token(
    *connectors: Connector,
    limit: int = 3,
    device_state: DeviceStateGate | None = None,
    pool: AnchorPool | None = None,
    rules: TokenRules | None = None,
) -> Access:
    """A profile that takes tokens, of `CONNECTOR` unless others are named."""
    found = AnchorPool(tuple(map(anchor, connectors or (CONNECTOR,))))
    return accepting(
        by_token=SignedAccess(
            AnchorFiles(None), pool or found, rules or TokenRules(), limit, device_state
        )
    )


@functools.cache
def token(
    nonce: str = "n-1",
    *,
    by: Connector = CONNECTOR,
    subject: str = SUBJECT,
    device_name: str | None = "device",
    now: int = NOW,
    **claims: Any,
) -> str:
    """A token for whoever brings it under this common name; asked again, it is the same one."""
    return by.mint(ChallengeClaims(subject, device_name, **claims), nonce, now)


# Devices


@functools.cache
def holder(number: int = 0) -> EcIdentity:
    """A device; each number has its key."""
    return ec_identity(f"device {number}", 0x7200 + number, p256(5000 + number))


def device_csr(
    by: EcIdentity, password: str | None, *sans: bytes, subject: bytes = DEVICE_NAME
) -> bytes:
    """A CSR with this challenge and these names."""
    attributes = [] if password is None else [challenge(UTF8, password.encode())]
    if sans:
        attributes.append(extension_request(san(*sans)))
    sign = ecdsa_sign(by.key, "sha256")
    return csr(by.key, *attributes, subject=subject, algorithm=_ECDSA, sign=sign)


def dns(value: str) -> bytes:
    return tlv(0x82, value.encode())


async def ask(
    world: World,
    by: EcIdentity,
    password: str | None,
    *sans: bytes,
    subject: bytes = DEVICE_NAME,
    attempt: int = 0,
    transaction: bytes = TRANSACTION,
    profile: str = PROFILE,
    signer: EcIdentity | None = None,
) -> Stored:
    """The request of a device as a gateway appends it; nobody has judged it yet.

    `signer` signs the message in the device's stead, with a key of its own.
    """
    asked, signer = device_csr(by, password, *sans, subject=subject), signer or by
    named = transaction_token(profile, transaction, spki(signer.key.public_key()))
    place = EnrollmentId("0", profile, named, csr_token(csr_info(asked)), attempt).subject(
        Stage.REQUEST
    )
    content = enveloped(asked, recipient(world.ra))
    attributes = [
        *scep_attributes(transaction_id=tlv(PRINTABLE, transaction)),
        *cms_attributes(content),
    ]
    sign = ecdsa_sign(signer.key, "sha256")
    event = EnrollmentRequested(
        pki_message=signed(content, signer, attributes, signature_algorithm=_ECDSA, sign=sign),
        content_key=seal(cipher_key("aes256"), place, OPENING.public_key()),
        sealing_key=OPENING_ID,
        transaction_id=transaction.decode(),
        message_type=19,
        signer_sha256=hashlib.sha256(signer.der).hexdigest(),
        client_address="192.0.2.1",
        gateway=GATEWAY,
        reply_budget_ms=1000,
    )
    return await append(world.bus, place, event)


def asked(
    by: EcIdentity, password: str | None, *sans: bytes, now: int = NOW, **names: Any
) -> ChallengeRequest:
    """A request as a verifier gets it, without a log around it."""
    found = read_csr(device_csr(by, password, *sans, **names))
    transaction = transaction_token(PROFILE, TRANSACTION, found.spki)
    opened = DecryptedRequest(found, facts(spki_sha256=hashlib.sha256(found.spki).hexdigest()))
    return ChallengeRequest(
        enrollment=EnrollmentId("0", PROFILE, transaction, csr_token(found.info), 0),
        request_sha256=hashlib.sha256(found.info).hexdigest(),
        transaction_id=TRANSACTION.decode(),
        opened=opened,
        asked_at=now,
    )


# Validators


def replicas(world: World, number: int = 4, seed: int = 0) -> list[RequestConsumer]:
    """More validators on the world's log, whose calls to it overlap."""
    return [
        on_bus(world, BusThrough(world.bus, racing(100 * seed + each))) for each in range(number)
    ]


def on_bus(world: World, bus: Bus) -> RequestConsumer:
    """One more validator with the settings of the world's."""
    return RequestConsumer(Evaluator(bus, world.evaluator.live, world.evaluator.chains))


async def evaluate_all(consumers: Sequence[RequestConsumer], requests: Sequence[Stored]) -> None:
    """Every request at the same time, each on the next validator."""
    pairs = zip(itertools.cycle(consumers), requests, strict=False)
    await asyncio.gather(*(consumer.handle(request) for consumer, request in pairs))


async def judged(world: World, request: Stored) -> EnrollmentApproved | EnrollmentRejected:
    """The verdict of the world's own validator."""
    await world.consumer.handle(request)
    return verdict(world, request)


def verdict(world: World, request: Stored) -> EnrollmentApproved | EnrollmentRejected:
    """The verdict on this request that stands on the log, authentic."""
    place = parse_subject(request.subject)[0].subject(Stage.VERDICT)
    (stored,) = messages_of(world.bus, "ENROLL_0", place)
    event = authenticate(stored, TRUSTED_VALIDATORS, Stage.VERDICT, request.sha256())
    assert isinstance(event, EnrollmentApproved | EnrollmentRejected)
    return event


def result(world: World, request: Stored) -> Reason | str:
    """Why a request was refused, or "approved"."""
    event = verdict(world, request)
    return event.reason if isinstance(event, EnrollmentRejected) else "approved"


async def judgement(world: World, request: Stored) -> Reason | str:
    """What the world's own validator makes of a request."""
    await world.consumer.handle(request)
    return result(world, request)


# What they remember


def claims(world: World) -> list[Stored]:
    """The records of challenges that were used."""
    return messages_of(world.bus, REPLAYS)


def windows(world: World) -> list[tuple[CountedEnrollment, ...]]:
    """The entries of each device's window as it is now."""
    last = {m.subject.rpartition(".")[0]: m for m in messages_of(world.bus, DEVICES)}
    return [authenticate_as(DeviceCounted, m, TRUSTED_VALIDATORS).entries for m in last.values()]


def places(world: World) -> int:
    """How many places are taken, of all devices together."""
    return sum(len(entries) for entries in windows(world))


async def issued(world: World, request: Stored, by: EventSigner = ISSUING) -> Stored:
    """What the issuer writes of a request whose certificate it has made."""
    event = CertificateIssued(
        request_sha256=request.sha256(), issuer=ISSUER, serial=SERIAL, certificate=b"",
        not_after=NOW + DAY,
    )  # fmt: skip
    return await _ended(world, request, event, by)


async def failed(world: World, request: Stored, by: EventSigner = ISSUING) -> Stored:
    """What the issuer writes where it could not make one."""
    event = IssuanceFailed(
        request_sha256=request.sha256(), reason=Reason.POISON,
        fail_info=FAIL_INFO[Reason.POISON], detail="the CA is down",
    )  # fmt: skip
    return await _ended(world, request, event, by)


async def _ended(world: World, request: Stored, event: EventPayload, by: EventSigner) -> Stored:
    place = parse_subject(request.subject)[0].subject(Stage.OUTCOME)
    return await append_signed(world.bus, place, event, by)
