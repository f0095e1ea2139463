"""Renewals and repeated enrollments through the whole validator, with what the log knows."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.facts import names_sha256
from shared.log.envelope import EventSigner, Stored
from shared.log.events.base import EventPayload
from shared.log.events.certificates import (
    CertificateStatus,
    CertificateStatusChanged,
    KeyCompromised,
)
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import EnrollmentApproved, EnrollmentRejected, RenewedCertificate
from shared.log.reasons import Reason
from shared.log.subjects import certificate_issued, certificate_status, key_compromised, key_issued
from shared.x509.csr import read_csr
from shared.x509.key_ids import spki_sha256
from tests.support.messages import Identity, csr, device_csr, spki
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    PIN,
    REQUEST_SHA256,
    SERIAL,
    STRANGER,
    append_signed,
    certified,
)
from tests.unit.services.validator.records import BEGIN, DAY, END, record

RENEWS = bytes.fromhex(SERIAL)


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        yield found


def names(asked: bytes) -> str:
    return names_sha256(read_csr(asked))


async def certify(world: World, by: EventSigner = ISSUING, **changes: Any) -> None:
    """Put the device's certificate on record, under the names of `device_csr`."""
    key = spki_sha256(spki(world.device.key.public_key()))
    names_of = names(device_csr(world.device))
    values = {"names_sha256": names_of, "spki_sha256": key} | changes
    found = record(**values)
    for subject in (certificate_issued(ISSUER, SERIAL), key_issued(key, ISSUER, SERIAL)):
        await append_signed(world.bus, subject, found, by)


async def told(world: World, subject: str, event: EventPayload) -> None:
    await append_signed(world.bus, subject, event, ISSUING)


async def revoke(world: World) -> None:
    revoked = CertificateStatusChanged(
        request_sha256=REQUEST_SHA256,
        serial=SERIAL,
        ca_spki_sha256=PIN,
        reason=RevocationReason.SUPERSEDED,
        status=CertificateStatus.REVOKED,
        command=1,
        revoked_at=NOW,
        operator="op",
    )
    await told(world, certificate_status(ISSUER, SERIAL, 0), revoked)


async def renewal(world: World, asked: bytes) -> Stored:
    return await world.request(by=certified(world.device, world.ca), csr=asked, renews=RENEWS)


async def judged(world: World, request: Stored) -> EnrollmentApproved | EnrollmentRejected:
    await world.consumer.handle(request)
    return world.verdict(request)


async def refused(world: World, request: Stored) -> Reason:
    verdict = await judged(world, request)
    assert isinstance(verdict, EnrollmentRejected)
    return verdict.reason


async def test_a_renewal_with_a_new_key_is_approved_and_says_what_it_renews(world: World) -> None:
    asked = csr(world.ra.key)
    await certify(world, names_sha256=names(asked), key_uses=1)
    verdict = await judged(world, await renewal(world, asked))

    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.renews == RenewedCertificate(serial=SERIAL, not_after=END, key_uses=0)
    assert verdict.existing == ""
    assert verdict.template.spki == spki(world.ra.key.public_key())
    assert verdict.template.not_before == NOW - 600


async def test_a_renewal_with_the_same_key_counts_its_use(world: World) -> None:
    await certify(world)
    verdict = await judged(world, await renewal(world, device_csr(world.device)))

    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.renews == RenewedCertificate(serial=SERIAL, not_after=END, key_uses=1)


async def test_a_second_renewal_with_the_same_key_is_refused(world: World) -> None:
    await certify(world, key_uses=1)

    assert await refused(world, await renewal(world, device_csr(world.device))) is Reason.KEY_REUSED


async def test_where_keys_may_be_reused_every_use_is_counted(world: World) -> None:
    await certify(world, key_uses=6)
    world.allow(renewal=world.policy.renewal.__class__(key_reuse=True))
    verdict = await judged(world, await renewal(world, device_csr(world.device)))

    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.renews is not None
    assert verdict.renews.key_uses == 7


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"not_after": NOW - 1}, Reason.NOT_RENEWABLE),
        ({"not_before": NOW - DAY}, Reason.RENEWED_TOO_EARLY),
        ({"names_sha256": "00" * 32}, Reason.NAMES_CHANGED),
        ({"profile": "other"}, Reason.NOT_RENEWABLE),
    ],
    ids=["expired", "too early", "other names", "another profile"],
)
async def test_a_renewal_against_the_rules_is_refused(
    world: World, changes: dict[str, Any], expected: Reason
) -> None:
    await certify(world, **changes)

    assert await refused(world, await renewal(world, device_csr(world.device))) is expected


async def test_a_renewal_by_a_certificate_that_is_not_on_record_is_refused(world: World) -> None:
    """The RA's, say: it is of the same CA, and not a device's."""
    request = await renewal(world, device_csr(world.device))

    assert await refused(world, request) is Reason.NOT_RENEWABLE


async def test_a_renewal_by_a_revoked_certificate_is_refused(world: World) -> None:
    await certify(world)
    await revoke(world)

    request = await renewal(world, device_csr(world.device))
    assert await refused(world, request) is Reason.NOT_RENEWABLE


async def test_a_renewal_that_asks_for_a_compromised_key_is_refused(world: World) -> None:
    await certify(world)
    key = spki_sha256(spki(world.device.key.public_key()))
    mark = KeyCompromised(request_sha256=REQUEST_SHA256, serial=SERIAL)
    await told(world, key_compromised(key, 0), mark)

    request = await renewal(world, device_csr(world.device))
    assert await refused(world, request) is Reason.KEY_COMPROMISED


async def test_a_renewal_needs_the_operator_where_the_profile_is_manual(world: World) -> None:
    await certify(world)
    world.allow(manual=True)
    await world.consumer.handle(await renewal(world, device_csr(world.device)))

    assert world.verdicts() == []


async def test_a_forged_record_lets_nobody_in(world: World) -> None:
    await certify(world, STRANGER)

    verdict = await judged(world, await renewal(world, device_csr(world.device)))

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.NOT_RENEWABLE


# First enrollments of a key that has a certificate


@pytest.mark.parametrize("manual", [False, True])
async def test_a_live_certificate_is_the_answer_and_needs_no_operator(
    world: World,
    manual: bool,  # noqa: FBT001 - a case
) -> None:
    await certify(world, not_before=BEGIN + DAY, not_after=END + 3 * DAY)
    world.allow(manual=manual)
    verdict = await judged(world, await world.request())

    assert isinstance(verdict, EnrollmentApproved)
    assert (verdict.existing, verdict.renews) == (SERIAL, None)


async def test_in_its_last_third_a_key_gets_a_new_certificate(world: World) -> None:
    await certify(world)
    verdict = await judged(world, await world.request())

    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.existing == ""


async def test_a_revoked_certificate_is_not_given_again(world: World) -> None:
    await certify(world, not_after=END + 300 * DAY)
    await revoke(world)
    verdict = await judged(world, await world.request())

    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.existing == ""


async def test_a_first_enrollment_of_a_compromised_key_is_refused(world: World) -> None:
    await certify(world)
    key = spki_sha256(spki(world.device.key.public_key()))
    mark = KeyCompromised(request_sha256=REQUEST_SHA256, serial=SERIAL)
    await told(world, key_compromised(key, 0), mark)

    assert await refused(world, await world.request()) is Reason.KEY_COMPROMISED
