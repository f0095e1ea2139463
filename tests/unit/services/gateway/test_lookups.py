"""GetCert: certificates by issuer and serial, read from the log (RFC 8894 s4.5)."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.bus.core import BusUnavailableError
from shared.log.envelope import EventSigner
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.enrollment import CertificateConfirmed, CertificateIssued
from shared.log.stages import Stage
from shared.log.subjects import certificate_issued
from shared.scep.certrep import CertRep, PkiStatus
from shared.scep.errors import FailInfo
from shared.scep.request import issuer_and_serial
from tests.support import pki
from tests.support.messages import (
    BMP,
    COMMON_NAME,
    PRINTABLE,
    SEQ,
    UTF8,
    Identity,
    cms_attributes,
    enveloped,
    name,
    recipient,
    scep_attributes,
    signed,
    tlv,
)
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    STRANGER,
    VALIDATOR,
    append_signed,
    counted,
)
from tests.unit.services.gateway.gateways import World, make_world

NEXT_KEY = ec.derive_private_key(41, ec.SECP256R1())
Ask = Callable[..., Awaitable[CertRep]]


@pytest.fixture
async def world(device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey) -> World:
    return await make_world(device, ra, ec_key)


def message(world: World, payload: bytes, kind: bytes = b"21") -> bytes:
    content = enveloped(payload, recipient(world.ra))
    attributes = [*scep_attributes(message_type=tlv(PRINTABLE, kind)), *cms_attributes(content)]
    return signed(content, world.device, attributes)


async def get_cert(world: World, issuer: bytes, serial: bytes) -> CertRep:
    return await world.send(message(world, issuer_and_serial(issuer, serial)))


async def enrolled(
    world: World, profile: str = "demo", by: EventSigner = ISSUING, **changes: Any
) -> tuple[bytes, bytes]:
    """(serial, certificate) of an enrollment that is on the log as services leave it."""
    leaf = world.certificate(await world.enroll())
    serial = pki.certificate_serial(leaf)
    values: dict[str, Any] = {
        "request_sha256": world.requests()[0].sha256(),
        "enrollment": world.enrollment(profile=profile).prefix(),
        "spki_sha256": "11" * 32,
        "subject": "CN=device",
        "not_before": NOW,
        "not_after": NOW + 1,
        "serial": serial.hex(),
    }
    record = CertificateRecorded(**(values | changes))
    await append_signed(world.bus, certificate_issued(ISSUER, serial.hex()), record, by)
    return serial, leaf


async def none_such(world: World, issuer: bytes, serial: bytes) -> None:
    reply = await get_cert(world, issuer, serial)

    assert (reply.status, reply.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_CERT_ID)


async def test_the_certificate_comes_alone_where_replies_hold_the_chain(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    world = await make_world(device, ra, ec_key, include_chain=True)
    parsed = world.ca.parsed
    reply = await get_cert(world, parsed.issuer, parsed.serial)

    assert world.certificate(reply) == world.ca.chain[0]


async def test_a_certificate_of_the_profile_is_found(world: World) -> None:
    serial, leaf = await enrolled(world)
    reply = await get_cert(world, world.ca.name, serial)

    assert reply.status is PkiStatus.SUCCESS
    assert world.certificate(reply) == leaf
    assert len(world.requests()) == 1


@pytest.mark.parametrize(
    ("tag", "text"),
    [(UTF8, b"Test CA"), (PRINTABLE, b"Test CA"), (BMP, "Test CA".encode("utf-16-be"))],
)
async def test_an_issuers_name_may_be_encoded_otherwise(
    world: World, tag: int, text: bytes
) -> None:
    """Clients take names apart and put them together again."""
    serial, leaf = await enrolled(world)
    reply = await get_cert(world, name((COMMON_NAME, tag, text)), serial)

    assert world.certificate(reply) == leaf


async def test_a_certificate_of_another_profile_is_none(world: World) -> None:
    """Each profile is a realm of its own, also where one CA issues for both."""
    serial, _ = await enrolled(world, "other")

    await none_such(world, world.ca.name, serial)


async def test_an_unknown_serial_is_none(world: World) -> None:
    before = counted("refused", profile="demo", reason="no_such_certificate")
    await none_such(world, world.ca.name, b"\x40" * 16)

    assert counted("refused", profile="demo", reason="no_such_certificate") == before + 1


@pytest.mark.parametrize("issuer", [b"Test CB", b"test ca "])
async def test_another_issuers_certificate_is_none(world: World, issuer: bytes) -> None:
    serial, _ = await enrolled(world)

    await none_such(world, name((COMMON_NAME, UTF8, issuer)), serial)


async def test_a_serial_that_is_recorded_and_not_yet_signed_is_none(world: World) -> None:
    serial, _ = await enrolled(world, request_sha256="77" * 32)
    (outcome,) = (s for s in world.ends() if s.subject.endswith(".outcome"))
    del world.bus.streams["ENROLL_0"].messages[outcome.sequence]

    await none_such(world, world.ca.name, serial)


# The CA's own


async def test_the_cas_own_certificate_is_found(world: World) -> None:
    reply = await get_cert(world, world.ca.name, world.ca.parsed.serial)

    assert world.certificate(reply) == world.ca.chain[0]


async def test_what_stands_above_the_ca_is_found(world: World) -> None:
    above = pki.local_ca(NEXT_KEY, "Above")
    world.ca = replace(world.ca, chain=(*world.ca.chain, above.chain[0]))
    reply = await get_cert(world, above.name, above.parsed.serial)

    assert world.certificate(reply) == above.chain[0]


async def test_the_cas_serial_under_another_issuer_is_none(world: World) -> None:
    other = name((COMMON_NAME, UTF8, b"Other"))

    await none_such(world, other, world.ca.parsed.serial)


# After a rollover


async def test_certificates_of_the_previous_ca_are_still_found(world: World) -> None:
    serial, leaf = await enrolled(world)
    old = world.ca
    world.roll_over(pki.local_ca(NEXT_KEY, "Next CA"))

    assert world.certificate(await get_cert(world, old.name, serial)) == leaf
    own = await get_cert(world, old.name, old.parsed.serial)
    assert world.certificate(own) == old.chain[0]


async def test_certificates_of_a_ca_that_was_dropped_are_none(world: World) -> None:
    serial, _ = await enrolled(world)
    old = world.ca
    world.roll_over(pki.local_ca(NEXT_KEY, "Next CA"))
    world.previous = ()

    await none_such(world, old.name, serial)


# What is not authentic


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR])
async def test_a_forged_record_is_reported_and_none(world: World, by: EventSigner) -> None:
    before = counted("security_events", stage="certificate")
    serial, _ = await enrolled(world, by=by)

    await none_such(world, world.ca.name, serial)
    assert counted("security_events", stage="certificate") == before + 1


async def replaced(world: World, event: CertificateIssued, by: EventSigner = ISSUING) -> None:
    """Put another outcome in the place of the one there is."""
    subject = world.enrollment().subject(Stage.OUTCOME)
    (stored,) = (s for s in world.ends() if s.subject == subject)
    del world.bus.streams["ENROLL_0"].messages[stored.sequence]
    await append_signed(world.bus, subject, event, by)


async def test_a_forged_outcome_is_reported_and_none(world: World) -> None:
    serial, _ = await enrolled(world)
    key = pki.spki(world.device.key.public_key())
    await replaced(world, world.others.issued("77" * 32, key), STRANGER)
    before = counted("security_events", stage="certificate")

    await none_such(world, world.ca.name, serial)
    assert counted("security_events", stage="certificate") == before + 1


async def test_an_outcome_with_another_serial_is_reported_and_none(world: World) -> None:
    serial, _ = await enrolled(world)
    key = pki.spki(world.device.key.public_key())
    await replaced(world, world.others.issued("77" * 32, key, name((COMMON_NAME, UTF8, b"x"))))
    before = counted("security_events", stage="certificate")

    await none_such(world, world.ca.name, serial)
    assert counted("security_events", stage="certificate") == before + 1


# The message


@pytest.mark.parametrize(
    "payload",
    [b"", b"junk", tlv(SEQ), tlv(SEQ, tlv(SEQ)), tlv(SEQ, tlv(2, b"\x40"), tlv(SEQ))],
)
@pytest.mark.parametrize("kind", [b"21", b"22"])
async def test_whatever_fails_behind_decryption_looks_like_an_unknown_serial(
    world: World, kind: bytes, payload: bytes
) -> None:
    """Nothing ties an envelope to its signer: anyone may send somebody else's, altered."""
    unknown = message(world, issuer_and_serial(world.ca.name, b"\x40"), kind)
    elsewhere = enveloped(payload, recipient(world.device))
    attributes = [*scep_attributes(message_type=tlv(PRINTABLE, kind)), *cms_attributes(elsewhere)]
    unopened = signed(elsewhere, world.device, attributes)
    replies = [await world.send(b) for b in (unknown, unopened, message(world, payload, kind))]

    assert {r.fail_info for r in replies} == {FailInfo.BAD_CERT_ID}
    assert len({r.fail_info_text for r in replies}) == 1


async def test_a_query_leaves_no_trace_on_the_log(world: World) -> None:
    await none_such(world, world.ca.name, b"\x40")

    assert all(stream.last == 0 for stream in world.bus.streams.values())


async def test_without_the_bus_a_query_is_not_answered(world: World) -> None:
    """Not with "no such certificate" either: the client would believe it."""
    world.bus.connected = False

    with pytest.raises(BusUnavailableError):
        await get_cert(world, world.ca.name, b"\x40")


async def test_a_withheld_certificate_is_given_out_only_when_it_is_confirmed(
    world: World,
) -> None:
    leaf = world.certificate(await world.enroll())
    serial, elsewhere = pki.certificate_serial(leaf), replace(world.enrollment(), attempt=7)
    request = world.requests()[0].sha256()
    event = CertificateIssued(
        request_sha256=request,
        issuer=ISSUER,
        serial=serial.hex(),
        certificate=leaf,
        not_after=NOW + 1,
        confirmed_by="contoso",
        withheld=True,
    )
    await append_signed(world.bus, elsewhere.subject(Stage.OUTCOME), event, ISSUING)
    record = CertificateRecorded(
        request_sha256=request,
        enrollment=elsewhere.prefix(),
        spki_sha256="11" * 32,
        subject="CN=device",
        not_before=NOW,
        not_after=NOW + 1,
        serial=serial.hex(),
    )
    await append_signed(world.bus, certificate_issued(ISSUER, serial.hex()), record, ISSUING)
    await none_such(world, world.ca.name, serial)

    confirmed = CertificateConfirmed(
        request_sha256=request, connection="contoso", serial=serial.hex()
    )
    await append_signed(world.bus, elsewhere.subject(Stage.CONFIRMATION), confirmed, VALIDATOR)
    reply = await get_cert(world, world.ca.name, serial)
    assert world.certificate(reply) == leaf
