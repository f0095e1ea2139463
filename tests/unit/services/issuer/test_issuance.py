"""What an approving verdict needs beside its signature: a request that carries it, and a CA."""

import datetime as dt
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.local import LocalCa
from services.issuer.consumer import RequestMissingError
from services.issuer.readable import unreadable
from services.issuer.settings import Settings
from shared.log.envelope import Message, Stored, encode
from shared.log.events.enrollment import (
    CertificateIssued,
    CertificateTemplate,
    IssuanceFailed,
    RenewedCertificate,
    TemplateExtension,
)
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, certificate_issued
from shared.scep.errors import FailInfo
from tests.support import pki
from tests.support.messages import (
    DEVICE_NAME,
    PRINTABLE,
    SEQ,
    T61,
    UTF8,
    cms_attributes,
    identity,
    name,
    scep_attributes,
    signed,
    tlv,
)
from tests.support.templates import DAY, EKU, KEY_USAGE, SPKI, template
from tests.support.world import (
    ISSUER,
    NOW,
    REQUEST_SHA256,
    REQUEST_TRANSACTION,
    REQUESTED,
    REQUESTER,
    append,
    approved,
    counted,
)
from tests.unit.services.issuer.issuers import ENROLLMENT, World, make_world


@pytest.fixture
async def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return await make_world(ec_key)


def failed(world: World, sha256: str = REQUEST_SHA256) -> IssuanceFailed:
    """The one outcome, a failure for a bad request, with nothing recorded."""
    found = world.outcome_of(ENROLLMENT.subject(Stage.OUTCOME), sha256)
    assert isinstance(found, IssuanceFailed)
    assert found.fail_info is FailInfo.BAD_REQUEST
    assert world.records() == []
    return found


# The stored request


async def test_a_verdict_without_a_request_is_never_acted_on(world: World) -> None:
    """The message comes again, for the request may only be late; in the end it is given up."""
    verdict = await world.verdict(request=None)
    with pytest.raises(RequestMissingError):
        await world.consumer.handle(verdict)
    assert world.outcomes() == world.records() == []
    await world.consumer.give_up(verdict)

    assert failed(world).reason is Reason.POISON


async def test_a_request_that_comes_late_is_found_the_next_time(world: World) -> None:
    verdict = await world.verdict(request=None)
    with pytest.raises(RequestMissingError):
        await world.consumer.handle(verdict)
    await append(world.bus, ENROLLMENT.subject(Stage.REQUEST), encode(REQUESTED))
    await world.consumer.handle(verdict)

    assert isinstance(world.outcome(), CertificateIssued)


def requested(message: bytes) -> Message:
    return encode(msgspec.structs.replace(REQUESTED, pki_message=message))


def attributes(content: bytes = b"x", **changes: bytes) -> list[bytes]:
    return [*scep_attributes(**changes), *cms_attributes(content)]


STRANGER = identity("device", 4712)
TAMPERED = bytearray(REQUESTED.pki_message)
TAMPERED[-1] ^= 1
UNSUPPORTED = {
    "another signer": (requested(signed(b"x", STRANGER)), "another transaction"),
    "another transactionID": (
        requested(signed(b"x", REQUESTER, attributes(transaction_id=tlv(PRINTABLE, b"other")))),
        "another transaction",
    ),
    "a poll": (
        requested(signed(b"x", REQUESTER, attributes(message_type=tlv(PRINTABLE, b"20")))),
        "no message signed by a device",
    ),
    "a broken signature": (requested(bytes(TAMPERED)), "no message signed by a device"),
    "no message": (requested(b""), "no message signed by a device"),
    "no event": (Message(b"{}", {}), "no message signed by a device"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
async def test_a_request_that_no_such_device_made_carries_no_certificate(
    world: World, case: str
) -> None:
    request, said = UNSUPPORTED[case]
    sha256 = Stored("", request.payload, {}, 0, 0).sha256()
    event = approved(template(world.ca.certificate), request_sha256=sha256)
    before = counted("security_events", stage="verdict")
    await world.consumer.handle(await world.verdict(event, request=request))

    found = failed(world, sha256)
    assert found.reason is Reason.BEYOND_CEILING
    assert said in found.detail
    assert counted("security_events", stage="verdict") == before + 1


async def test_a_verdict_about_another_request_than_the_stored_one_is_refused(
    world: World,
) -> None:
    event = approved(template(world.ca.certificate), request_sha256="77" * 32)
    await world.consumer.handle(await world.verdict(event))

    assert "a different request" in failed(world, "77" * 32).detail


async def test_a_renewal_is_signed_with_what_it_renews(world: World) -> None:
    renews = RenewedCertificate(serial="41" * 16, not_after=NOW + DAY, key_uses=0)
    await world.consumer.handle(
        await world.verdict(approved(template(world.ca.certificate), renews=renews))
    )

    assert "not signed with the certificate to renew" in failed(world).detail


async def test_a_key_that_did_not_sign_the_request_may_be_certified(world: World) -> None:
    """A renewal's new key, or a device whose messages another key signs."""
    await world.consumer.handle(await world.verdict())
    outcome = world.outcome()

    assert isinstance(outcome, CertificateIssued)
    leaf = x509.load_der_x509_certificate(outcome.certificate)
    assert leaf.public_key() != REQUESTER.key.public_key()


# Serial numbers


async def test_each_attempt_has_a_certificate_of_its_own(world: World) -> None:
    """One key renewed, or in two profiles, within a second: nothing else in them differs."""
    others = [ENROLLMENT, replace(ENROLLMENT, csr="other"), ENROLLMENT.at(1)]
    for each in others:
        await world.consumer.handle(await world.verdict(enrollment=each))
    found = [world.outcome_of(each.subject(Stage.OUTCOME)) for each in others]
    serials = [each.serial for each in found if isinstance(each, CertificateIssued)]

    assert len(set(serials)) == 3
    for each, serial in zip(others, serials, strict=True):
        record = world.record(certificate_issued(ISSUER, serial))
        assert record.enrollment == each.prefix()


async def test_whoever_takes_the_same_attempt_makes_the_same_certificate(
    world: World, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    """Redelivered, or by another replica after the first one died between record and outcome."""
    other = await make_world(ec_key)
    for each in (world, other):
        await each.consumer.handle(await each.verdict())
    mine, theirs = world.outcome(), other.outcome()
    await world.consumer.handle(await world.verdict(enrollment=ENROLLMENT.at(1)))

    assert isinstance(mine, CertificateIssued)
    assert isinstance(theirs, CertificateIssued)
    assert mine.serial == theirs.serial


# A CA that has ended


@pytest.fixture
async def ending(ec_key: ec.EllipticCurvePrivateKey) -> World:
    """An issuer whose CA ends in an hour."""
    world = await make_world(ec_key)
    end = dt.datetime.fromtimestamp(NOW + 3600, dt.UTC)
    world.ca = pki.local_ca(ec_key, end=end)
    world.use(current=world.ca)
    return world


async def test_a_ca_that_has_ended_refuses_and_says_when(ending: World) -> None:
    ending.clock.seconds += 3600
    made = template(ending.ca.certificate, not_before=NOW, not_after=NOW + 3600)
    await ending.consumer.handle(await ending.verdict(approved(made)))

    found = failed(ending)
    assert found.reason is Reason.CA_NOT_VALID
    assert "the CA expired at 2026-01-01 01:00:00 UTC" in found.detail


async def test_a_certificate_that_ended_before_its_verdict_is_never_issued(
    ending: World,
) -> None:
    ending.clock.seconds += 1800
    made = template(ending.ca.certificate, not_before=NOW, not_after=NOW + 900)
    await ending.consumer.handle(await ending.verdict(approved(made)))

    assert "expired already" in failed(ending).detail


async def test_an_issuer_with_a_ca_that_has_ended_says_so(ending: World) -> None:
    settings: Settings = ending.settings

    assert settings.ended(NOW + 3599) == []
    assert settings.ended(NOW + 3600) == [
        (
            f"issuer {ISSUER}: the CA expired at 2026-01-01 01:00:00 UTC: "
            "it no longer issues certificates"
        )
    ]


# What would not load


def draft_problem(ca: LocalCa, **changes: Any) -> str:
    made = template(ca.certificate, **changes)
    return unreadable(made, unsigned(ca, made), lambda plain: unsigned(ca, plain))


def unsigned(ca: LocalCa, made: CertificateTemplate) -> bytes:
    return ca.unsigned(ca.draft(made, "attempt"))


@pytest.mark.parametrize(
    "subject",
    [
        name(("2.5.4.3", UTF8, b"a" * 300)),
        name(("2.5.4.6", PRINTABLE, b"USA")),
        name(("2.5.4.3", PRINTABLE, b"a_b@c")),
        name(("2.5.4.3", PRINTABLE, b"Zo\xeb")),
        name(("2.5.4.3", T61, b"Zo\xeb")),
        tlv(SEQ),
    ],
)
def test_what_clients_may_write_into_a_subject_loads(world: World, subject: bytes) -> None:
    assert draft_problem(world.ca, subject=subject) == ""


def test_what_is_no_name_does_not_load(world: World) -> None:
    assert "would not load" in draft_problem(world.ca, subject=b"\x05\x00")


def test_a_template_whose_fields_run_into_each_other_is_noticed(world: World) -> None:
    """The key in the certificate is the one in `subject`; `spki` becomes an issuerUniqueID."""
    problem = draft_problem(world.ca, subject=DEVICE_NAME + SPKI, spki=tlv(0x81, b"\0id"))

    assert problem == "the certificate would load with a different subject or key"


def extensions(oid: str, value: bytes) -> tuple[TemplateExtension, ...]:
    return (KEY_USAGE, EKU, TemplateExtension(oid=oid, critical=False, value=value))


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": name(("2.5.4.3", 0x1E, b"\0a\0"))},
        {"subject": tlv(SEQ, tlv(0x31))},
        {"extensions": extensions("2.5.29.17", tlv(SEQ, tlv(0x87, b"abc")))},
        {"extensions": extensions("2.5.29.17", tlv(SEQ, tlv(0xA5)))},
        {"extensions": extensions("2.5.29.31", b"\x04\x00")},
        {"extensions": extensions("2.5.29.35", b"\x04\x00")},
        {"extensions": extensions("2.5.29.14", b"\x05\x00")},
        {"extensions": (KEY_USAGE, EKU, EKU)},
        {"spki": tlv(SEQ)},
    ],
    ids=repr,
)
def test_what_strict_parsers_refuse_is_found_in_the_draft(
    world: World, changes: dict[str, Any]
) -> None:
    assert draft_problem(world.ca, **changes).startswith("the certificate would not load")


async def test_what_would_not_load_is_neither_recorded_nor_signed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = template(world.ca.certificate, extensions=extensions("2.5.29.31", b"\x04\x00"))
    monkeypatch.setattr(LocalCa, "sign", None)
    await world.consumer.handle(await world.verdict(approved(made)))

    found = failed(world)
    assert found.reason is Reason.UNREADABLE
    assert "would not load" in found.detail


def test_the_enrollment_of_these_tests_is_that_of_their_request() -> None:
    assert EnrollmentId("0", "demo", REQUEST_TRANSACTION, "csr", 0) == ENROLLMENT
