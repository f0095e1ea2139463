"""The index of certificates, and the certificate that a key has already."""

import hashlib
from types import SimpleNamespace

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.ceilings import names_sha256
from services.issuer.connectors.local import LocalCa, LocalConnector
from services.issuer.existing import OutcomeMissingError
from services.validator import facts
from shared.bus.core import BusUnavailableError
from shared.log.envelope import Stored, encode
from shared.log.events.enrollment import (
    CertificateIssued,
    IssuanceFailed,
    RenewedCertificate,
)
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, certificate_issued, key_issued, serial_token
from shared.scep.errors import FailInfo
from shared.x509.csr import read_csr
from shared.x509.key_ids import spki_sha256
from tests.support import pki
from tests.support.messages import (
    DEVICE_NAME,
    SEQ,
    Identity,
    csr,
    extension,
    extension_request,
    tlv,
)
from tests.support.templates import DAY, SAN, SPKI, template
from tests.support.world import (
    ISSUER,
    NOW,
    REQUEST_SHA256,
    REQUEST_TRANSACTION,
    REQUESTED,
    REQUESTER,
    STRANGER,
    approved,
    counted,
    signed_event,
)
from tests.unit.services.issuer.issuers import ENROLLMENT, World, make_world

AGAIN = EnrollmentId("0", "demo", REQUEST_TRANSACTION, "another", 0)
ASKED_AGAIN = encode(msgspec.structs.replace(REQUESTED, gateway="gw-2"))
ASKED_AGAIN_SHA256 = hashlib.sha256(ASKED_AGAIN.payload).hexdigest()
OTHER_KEY = ec.derive_private_key(21, ec.SECP256R1())
PLANNED_KEY = ec.derive_private_key(22, ec.SECP256R1())


@pytest.fixture
async def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return await make_world(ec_key)


def issued(world: World, enrollment: EnrollmentId = ENROLLMENT) -> CertificateIssued:
    event = outcome(world, enrollment)
    assert isinstance(event, CertificateIssued)
    return event


def outcome(
    world: World, enrollment: EnrollmentId = ENROLLMENT
) -> CertificateIssued | IssuanceFailed:
    """The outcome of one of several enrollments."""
    return world.outcome_of(enrollment.subject(Stage.OUTCOME))


# The index


async def test_a_certificate_is_recorded_under_its_serial_and_under_its_key(world: World) -> None:
    await world.consumer.handle(await world.verdict())
    serial = issued(world).serial
    by_serial = world.record(certificate_issued(ISSUER, serial))
    by_key = world.record(key_issued(spki_sha256(SPKI), ISSUER, serial))

    assert by_serial == by_key
    assert len(world.records()) == 2
    assert by_key.spki_sha256 == spki_sha256(SPKI)
    assert (by_key.renews, by_key.key_uses) == ("", 0)


async def test_the_record_of_a_renewal_says_what_it_renews_and_counts_the_key(
    world: World,
) -> None:
    signer = serial_token(REQUESTER.certificate.serial)
    renews = RenewedCertificate(serial=signer, not_after=NOW, key_uses=3)
    await world.consumer.handle(
        await world.verdict(approved(template(world.ca.certificate), renews=renews))
    )
    record = world.record(certificate_issued(ISSUER, issued(world).serial))

    assert (record.renews, record.key_uses) == (signer, 3)


@pytest.mark.parametrize("critical", [b"", b"\x01\x01\xff"])
def test_issuer_and_validator_name_names_alike(
    device: Identity, ec_key: ec.EllipticCurvePrivateKey, critical: bytes
) -> None:
    """Else no renewal would ever have the names of what it renews."""
    san = extension("2.5.29.17", SAN.value, critical=critical)
    asked = read_csr(csr(device.key, extension_request(san), subject=DEVICE_NAME))
    made = template(pki.make_root(ec_key))

    assert names_sha256(made) == facts.names_sha256(asked)


def test_names_without_a_san_are_the_subject_alone(
    device: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    asked = read_csr(csr(device.key, subject=DEVICE_NAME))
    bare = template(pki.make_root(ec_key), extensions=())

    assert names_sha256(bare) == facts.names_sha256(asked)
    assert names_sha256(bare) != names_sha256(template(pki.make_root(ec_key)))


def test_an_empty_san_in_a_csr_is_none_in_both_records(
    device: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    """The template leaves it out, so that the next renewal must not differ for it."""
    empty = extension("2.5.29.17", tlv(SEQ))
    asked = read_csr(csr(device.key, extension_request(empty), subject=DEVICE_NAME))

    assert facts.names_sha256(asked) == names_sha256(template(pki.make_root(ec_key), extensions=()))


async def test_neither_place_of_the_index_is_left_out(world: World) -> None:
    """Were only one of them written, a compromise or a revocation would not be found."""
    verdict = await world.verdict()
    world.bus.streams["CERTS"].subjects = ("cert.*.*.issued",)
    with pytest.raises(BusUnavailableError):
        await world.consumer.handle(verdict)

    assert world.outcomes() == []


# The certificate that the key has already


async def first(world: World) -> CertificateIssued:
    """A certificate, and its outcome on the log."""
    await world.consumer.handle(await world.verdict())
    return issued(world)


async def again(world: World, existing: str, **changes: object) -> Stored:
    """A later approval of the same key that points to its certificate."""
    later = template(world.ca.certificate, not_after=NOW + 364 * DAY, **changes)
    event = approved(later, request_sha256=ASKED_AGAIN_SHA256, existing=existing)
    return await world.verdict(event, enrollment=AGAIN, request=ASKED_AGAIN)


async def test_the_existing_certificate_is_the_outcome_and_nothing_new_is_recorded(
    world: World,
) -> None:
    known = await first(world)
    before = world.records()
    await world.consumer.handle(await again(world, known.serial))

    found = world.outcome_of(AGAIN.subject(Stage.OUTCOME), ASKED_AGAIN_SHA256)
    assert isinstance(found, CertificateIssued)
    assert (found.serial, found.certificate) == (known.serial, known.certificate)
    assert found.not_after == known.not_after
    assert world.records() == before


async def test_an_existing_certificate_comes_without_the_ocsp_response_of_its_issuance(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status may have changed since."""

    async def staple(_: object, outcome: CertificateIssued) -> CertificateIssued:
        return msgspec.structs.replace(outcome, ocsp=b"good", ocsp_until=NOW + DAY)

    monkeypatch.setattr(world.consumer, "responder", SimpleNamespace(staple=staple))
    event = approved(template(world.ca.certificate), staple=True)
    await world.consumer.handle(await world.verdict(event))
    known = issued(world)
    assert known.ocsp == b"good"
    await world.consumer.handle(await again(world, known.serial))

    found = world.outcome_of(AGAIN.subject(Stage.OUTCOME), ASKED_AGAIN_SHA256)
    assert isinstance(found, CertificateIssued)
    assert (found.serial, found.ocsp, found.ocsp_until) == (known.serial, b"", 0)


async def test_the_same_answer_is_given_again(world: World) -> None:
    """The outcome of an outcome is found too: a third enrollment names the first record."""
    known = await first(world)
    verdict = await again(world, known.serial)
    await world.consumer.handle(verdict)
    outcomes = world.outcomes()
    await world.consumer.handle(verdict)

    assert world.outcomes() == outcomes


async def newly_issued(world: World, verdict: Stored, known: CertificateIssued) -> None:
    await world.consumer.handle(verdict)
    found = world.outcome_of(AGAIN.subject(Stage.OUTCOME), ASKED_AGAIN_SHA256)

    assert isinstance(found, CertificateIssued)
    assert found.serial != known.serial
    assert certificate_issued(ISSUER, found.serial) in {r.subject for r in world.records()}


async def test_without_a_record_a_new_certificate_is_issued(world: World) -> None:
    known = await first(world)

    await newly_issued(world, await again(world, "41" * 16), known)


async def test_without_its_outcome_the_one_that_is_recorded_is_waited_for(world: World) -> None:
    """Killed between record and signature: its message comes again, and makes that certificate."""
    known = await first(world)
    (stored,) = world.outcomes()
    del world.bus.streams["ENROLL_0"].messages[stored.sequence]

    verdict = await again(world, known.serial)
    with pytest.raises(OutcomeMissingError):
        await world.consumer.handle(verdict)


async def test_where_the_first_enrollment_failed_a_new_certificate_is_issued(
    world: World,
) -> None:
    known = await first(world)
    (stored,) = world.outcomes()
    failed = IssuanceFailed(
        request_sha256=REQUEST_SHA256,
        reason=Reason.POISON,
        fail_info=FailInfo.BAD_REQUEST,
        detail="",
    )
    message = signed_event(failed, stored.subject, world.settings.signer)
    world.replace(stored, message)

    await newly_issued(world, await again(world, known.serial), known)


@pytest.mark.parametrize("place", ["cert", "outcome"])
async def test_a_forged_record_or_outcome_is_reported_and_a_new_certificate_issued(
    world: World, place: str
) -> None:
    known = await first(world)
    by_serial = certificate_issued(ISSUER, known.serial)
    stored = next(
        r
        for r in (*world.records(), *world.outcomes())
        if (r.subject == by_serial if place == "cert" else r.subject.endswith(".outcome"))
    )
    event = world.record(by_serial) if place == "cert" else known
    world.replace(stored, signed_event(event, stored.subject, STRANGER))
    before = counted("security_events", stage="outcome")

    await newly_issued(world, await again(world, known.serial), known)
    assert counted("security_events", stage="outcome") == before + 1


async def test_a_certificate_of_another_key_is_never_the_answer(world: World) -> None:
    known = await first(world)
    verdict = await again(world, known.serial, spki=pki.spki(OTHER_KEY.public_key()))

    await newly_issued(world, verdict, known)


async def test_an_approval_beyond_the_ceilings_is_no_way_to_an_existing_certificate(
    world: World,
) -> None:
    known = await first(world)
    verdict = await again(world, known.serial, extensions=())
    await world.consumer.handle(verdict)

    found = world.outcome_of(AGAIN.subject(Stage.OUTCOME), ASKED_AGAIN_SHA256)
    assert isinstance(found, IssuanceFailed)
    assert found.reason is Reason.BEYOND_CEILING


# CAs before and after


@pytest.fixture
def other() -> LocalCa:
    return pki.local_ca(OTHER_KEY, "Other CA")


async def test_a_verdict_for_the_previous_ca_is_still_acted_on(
    world: World, other: LocalCa
) -> None:
    """It was made before the rollover and came after it."""
    verdict = await world.verdict()
    world.use(current=other, previous=(world.ca,))
    await world.consumer.handle(verdict)

    leaf = x509.load_der_x509_certificate(issued(world).certificate)
    leaf.verify_directly_issued_by(world.ca.certificate)
    record = world.record(certificate_issued(ISSUER, issued(world).serial))
    assert record.ca_spki_sha256 == world.ca.pin


async def test_a_verdict_for_the_current_ca_is_signed_by_that_one(
    world: World, other: LocalCa
) -> None:
    world.use(current=other, previous=(world.ca,))
    await world.consumer.handle(await world.verdict(approved(template(other.certificate))))

    leaf = x509.load_der_x509_certificate(issued(world).certificate)
    leaf.verify_directly_issued_by(other.certificate)


@pytest.mark.parametrize("known", [True, False])
async def test_a_verdict_for_a_planned_or_a_dropped_ca_is_refused(
    world: World,
    other: LocalCa,
    known: bool,  # noqa: FBT001 - a case
) -> None:
    """The next CA signs nothing before its time."""
    world.use(planned=other if known else None)
    await world.consumer.handle(await world.verdict(approved(template(other.certificate))))

    found = outcome(world)
    assert isinstance(found, IssuanceFailed)
    assert found.reason is Reason.BEYOND_CEILING
    assert world.records() == []


async def test_the_previous_cas_own_ceilings_count(world: World) -> None:
    """A certificate ends before the CA that signs it, not before another one."""
    brief = pki.local_ca(OTHER_KEY, end=pki.dt.datetime.fromtimestamp(NOW + DAY, pki.dt.UTC))
    world.use(previous=(brief,))
    await world.consumer.handle(await world.verdict(approved(template(brief.certificate))))

    assert isinstance(outcome(world), IssuanceFailed)


def test_active_cas_are_the_current_one_and_those_before_it(world: World, other: LocalCa) -> None:
    planned = pki.local_ca(PLANNED_KEY)
    found = LocalConnector(world.ca, (other,), planned)

    assert found.active == (world.ca, other)
    assert found.pinned(other.pin) is other
    assert found.pinned(world.ca.pin) is world.ca
    assert found.pinned(planned.pin) is None
