"""OCSP responses: when they are signed, by whom, and what other software reads in them."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.issuer.connectors.local import SigningError
from services.issuer.lints import first_error
from services.issuer.responder import Responder
from shared.bus.core import BusUnavailableError
from shared.limits import SERIES_LENGTH
from shared.log.envelope import Message, Stored, authenticate_as
from shared.log.events.certificates import (
    OcspResponseSigned,
    ServiceCertificateIssued,
)
from shared.log.events.commands import RevocationReason
from shared.log.events.enrollment import CertificateIssued
from shared.log.streams import CERTS, OCSP
from shared.log.subjects import certificate_issued, ocsp_response
from shared.runtime.live import Live
from tests.support import pki
from tests.support.templates import template
from tests.support.world import (
    ISSUER,
    NOW,
    STRANGER,
    TRUSTED_ISSUERS,
    append_signed,
    messages_of,
)
from tests.unit.services.issuer.revocations import DAY, SERIAL, World, make_world, serial

VALIDITY = 4 * DAY


@pytest.fixture
def world(ec_key: ec.EllipticCurvePrivateKey) -> World:
    return make_world(pki.local_ca(ec_key), ocsp_validity=VALIDITY)


@pytest.fixture
def responder(world: World) -> Responder:
    return world.orders.responder


def another(world: World) -> Responder:
    return Responder(world.bus, world.keeper.live, world.clock, "another")


def responses(world: World, number: str = SERIAL) -> list[OcspResponseSigned]:
    """Every response about a certificate, oldest first, all of them authentic."""
    return [
        authenticate_as(OcspResponseSigned, stored, TRUSTED_ISSUERS)
        for stored in messages_of(world.bus, OCSP)
        if stored.subject.split(".")[2] == number
    ]


def newest(world: World, number: str = SERIAL, algorithm: str = "sha1") -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response(responses(world, number)[-1].responses[algorithm])


def signers(world: World) -> list[ServiceCertificateIssued]:
    return [
        authenticate_as(ServiceCertificateIssued, stored, TRUSTED_ISSUERS)
        for stored in messages_of(world.bus, CERTS)
        if stored.subject.startswith("service.")
    ]


def record(world: World, number: str = SERIAL) -> Stored:
    place = certificate_issued(ISSUER, number)
    return next(s for s in messages_of(world.bus, CERTS) if s.subject == place)


# What a response says


async def test_a_new_certificate_is_good(world: World, responder: Responder) -> None:
    await world.issue()
    await responder.handle(record(world))

    found = newest(world)
    assert found.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert found.this_update_utc.timestamp() == NOW
    assert found.next_update_utc is not None
    assert found.next_update_utc.timestamp() == NOW + VALIDITY
    assert responses(world)[0].position == 0


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()])
async def test_a_client_finds_the_certid_that_it_sent(
    world: World, responder: Responder, algorithm: hashes.HashAlgorithm
) -> None:
    await world.issue()
    await responder.handle(record(world))

    key = ec.generate_private_key(ec.SECP256R1())
    leaf = pki.make_certificate(key.public_key(), key, serial=int(SERIAL, 16))
    request = ocsp.OCSPRequestBuilder().add_certificate(leaf, world.ca.certificate, algorithm)
    asked, found = request.build(), newest(world, algorithm=algorithm.name)
    for name in ("issuer_name_hash", "issuer_key_hash", "serial_number"):
        assert getattr(found, name) == getattr(asked, name)


async def test_the_signer_is_certified_by_the_ca_for_days_and_for_nothing_else(
    world: World, responder: Responder
) -> None:
    await world.issue()
    await responder.handle(record(world))

    found = newest(world)
    (signer,) = found.certificates
    signer.verify_directly_issued_by(world.ca.certificate)
    key = signer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(found.signature, found.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    extensions = signer.extensions
    usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    lifetime = signer.not_valid_after_utc - signer.not_valid_before_utc
    assert lifetime.total_seconds() == DAY + VALIDITY + 3600
    assert first_error(signers(world)[0].certificate) == ""


async def test_the_signers_certificate_is_on_the_log_first(
    world: World, responder: Responder
) -> None:
    await world.issue()
    await responder.handle(record(world))

    (event,) = signers(world)
    (signer,) = newest(world).certificates
    assert event.purpose == "ocsp"
    assert x509.load_der_x509_certificate(event.certificate) == signer
    assert event.serial == f"{signer.serial_number:x}"


async def test_an_rsa_ca_certifies_it_too(rsa_key: rsa.RSAPrivateKey) -> None:
    world = make_world(pki.local_ca(rsa_key), ocsp_validity=VALIDITY)
    await world.issue()
    await world.orders.responder.handle(record(world))

    (signer,) = newest(world).certificates
    ca_key = world.ca.certificate.public_key()
    assert isinstance(ca_key, rsa.RSAPublicKey)
    ca_key.verify(
        signer.signature, signer.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA256()
    )


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (RevocationReason.UNSPECIFIED, None),
        (RevocationReason.KEY_COMPROMISE, x509.ReasonFlags.key_compromise),
        (RevocationReason.SUPERSEDED, x509.ReasonFlags.superseded),
        (RevocationReason.PRIVILEGE_WITHDRAWN, x509.ReasonFlags.privilege_withdrawn),
        (RevocationReason.CERTIFICATE_HOLD, x509.ReasonFlags.certificate_hold),
    ],
)
async def test_a_revoked_certificate_is_revoked_when_its_order_is_answered(
    world: World,
    responder: Responder,
    reason: RevocationReason,
    expected: x509.ReasonFlags | None,
) -> None:
    await world.issue()
    await responder.handle(record(world))
    order = await world.order(reason=reason)
    await world.orders.handle(order)

    assert world.answer(order).done
    found = newest(world)
    assert found.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert found.revocation_reason == expected
    assert found.revocation_time_utc is not None
    assert found.revocation_time_utc.timestamp() == order.seconds


async def test_a_lifted_hold_is_good_again(world: World, responder: Responder) -> None:
    await world.issue()
    await responder.handle(record(world))
    for attempt, reason in enumerate(
        (RevocationReason.CERTIFICATE_HOLD, RevocationReason.REMOVE_FROM_CRL)
    ):
        await world.orders.handle(await world.order(reason=reason, attempt=attempt))

    assert newest(world).certificate_status is ocsp.OCSPCertStatus.GOOD
    assert [each.position > 0 for each in responses(world)] == [False, True, True]


async def test_a_response_for_the_reply_is_signed_without_the_log(
    world: World, responder: Responder
) -> None:
    outcome = CertificateIssued(
        request_sha256="00" * 32, issuer=ISSUER, serial=SERIAL, certificate=b"", not_after=NOW + DAY
    )
    ours = template(world.ca.certificate)
    stapled = await responder.staple(ours, outcome)

    assert stapled.ocsp_until == NOW + VALIDITY
    found = ocsp.load_der_ocsp_response(stapled.ocsp)
    assert found.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert f"{found.serial_number:x}" == SERIAL
    assert messages_of(world.bus, OCSP) == []
    for changes in ({"issuer": "other"}, {"ca_spki_sha256": "00" * 32}):
        other = msgspec.structs.replace(ours, **changes)
        assert await responder.staple(other, outcome) == outcome


# When there is a new one


async def test_a_record_that_is_delivered_twice_is_answered_once(
    world: World, responder: Responder
) -> None:
    await world.issue()
    for each in (responder, responder, another(world)):
        await each.handle(record(world))

    assert len(responses(world)) == 1


@pytest.mark.parametrize(
    ("later", "expected"), [(VALIDITY // 2, 1), (VALIDITY // 2 + 1, 2), (VALIDITY - 1, 2)]
)
async def test_at_half_its_time_it_is_signed_again(
    world: World, responder: Responder, later: int, expected: int
) -> None:
    await world.issue(not_after=NOW + 100 * DAY)
    await responder.handle(record(world))
    world.clock.seconds += later
    await responder.look()
    await another(world).look()

    assert len(responses(world)) == expected


async def test_a_certificate_that_has_ended_needs_none(world: World, responder: Responder) -> None:
    await world.issue(not_after=NOW + DAY)
    await responder.handle(record(world))
    world.clock.seconds += 3 * DAY
    await responder.look()

    assert len(responses(world)) == 1


async def test_many_that_are_due_are_all_signed_again(world: World, responder: Responder) -> None:
    numbers = [serial(each) for each in range(150)]
    for number in numbers:
        await world.issue(number, not_after=NOW + 100 * DAY)
        await responder.handle(record(world, number))
    world.clock.seconds += 3 * DAY
    await responder.look()

    assert {len(responses(world, number)) for number in numbers} == {2}


async def test_a_failure_in_the_middle_loses_none(
    world: World, responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [serial(each) for each in range(5)]
    for number in numbers:
        await world.issue(number, not_after=NOW + 100 * DAY)
        await responder.handle(record(world, number))
    world.clock.seconds += 3 * DAY
    publish, calls = responder.publish, []

    async def fails_once(issuer: str, number: str) -> bool:
        calls.append(number)
        if len(calls) == 3:
            raise BusUnavailableError("away")
        return await publish(issuer, number)

    monkeypatch.setattr(responder, "publish", fails_once)
    with pytest.raises(BusUnavailableError):
        await responder.look()
    await responder.look()

    assert {len(responses(world, number)) for number in numbers} == {2}


async def test_certificates_from_before_it_was_wanted_are_found(
    world: World, responder: Responder
) -> None:
    await world.issue()
    await world.revoke()
    await responder.search()

    assert newest(world).certificate_status is ocsp.OCSPCertStatus.REVOKED


async def test_one_that_cannot_be_signed_does_not_stop_the_others(
    world: World, responder: Responder
) -> None:
    broken, whole = serial(1), serial(2)
    for number in (broken, whole):
        await world.issue(number)
    for forged in range(SERIES_LENGTH + 1):
        await world.bus.append(ocsp_response(ISSUER, broken, forged), Message(b"{}", {}))
    await responder.search()

    assert newest(world, whole).certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_after_a_long_outage_responses_are_signed_again(
    world: World, responder: Responder
) -> None:
    await world.issue(not_after=NOW + 100 * DAY)
    await responder.handle(record(world))
    world.clock.seconds += 10 * DAY
    await responder.look()
    assert responses(world) == []  # it has left the log

    await responder.search()
    assert newest(world).this_update_utc.timestamp() == NOW + 10 * DAY


async def test_responses_of_a_shorter_validity_are_not_hidden_behind_longer_ones(
    world: World, responder: Responder
) -> None:
    first, second = serial(1), serial(2)
    await world.issue(first, not_after=NOW + 100 * DAY)
    await responder.handle(record(world, first))
    shorter = replace(world.authorities, ocsp_validity=DAY)
    live = Live(replace(world.keeper.live.current, issuers={ISSUER: shorter}))
    after = Responder(world.bus, live, world.clock, "after")
    await world.issue(second, not_after=NOW + 100 * DAY)
    await after.handle(record(world, second))
    world.clock.seconds += DAY * 3 // 4
    await after.look()
    await after.search()

    assert len(responses(world, second)) == 2


async def test_an_issuer_whose_key_is_away_does_not_stop_another(
    world: World, responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def fails_first(issuer: str) -> None:
        seen.append(issuer)
        if len(seen) == 1:
            raise BusUnavailableError("away")

    issuers = {"a": world.authorities, "b": world.authorities}
    responder.live.current = replace(responder.live.current, issuers=issuers)
    monkeypatch.setattr(responder, "_renew", fails_first)
    with pytest.raises(BusUnavailableError):
        await responder.look()
    assert seen == ["a", "b"]


async def test_an_enrollment_does_not_fail_for_want_of_a_response(
    world: World, responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = CertificateIssued(
        request_sha256="00" * 32, issuer=ISSUER, serial=SERIAL, certificate=b"", not_after=NOW + DAY
    )

    async def fails(*_: object) -> None:
        raise SigningError("the token answers nonsense")

    monkeypatch.setattr(responder, "_signer", fails)
    assert await responder.staple(template(world.ca.certificate), outcome) == outcome


async def test_a_revoked_certificate_gets_no_response_for_the_reply(
    world: World, responder: Responder
) -> None:
    await world.issue()
    await world.revoke()
    outcome = CertificateIssued(
        request_sha256="00" * 32, issuer=ISSUER, serial=SERIAL, certificate=b"", not_after=NOW + DAY
    )
    assert await responder.staple(template(world.ca.certificate), outcome) == outcome


async def test_an_issuer_that_wants_none_has_none(ec_key: ec.EllipticCurvePrivateKey) -> None:
    world = make_world(pki.local_ca(ec_key))
    await world.issue()
    await world.orders.responder.handle(record(world))
    await world.orders.responder.look()

    assert world.orders.responder.jobs() == []
    assert messages_of(world.bus, OCSP) == []


# Who signs


async def test_a_signer_is_replaced_each_day(world: World, responder: Responder) -> None:
    for number, later in ((serial(1), 0), (serial(2), DAY - 1), (serial(3), 1)):
        world.clock.seconds += later
        await world.issue(number, not_after=NOW + 100 * DAY)
        await responder.handle(record(world, number))

    first, second, third = (newest(world, serial(n)).certificates for n in (1, 2, 3))
    assert first == second != third
    assert len(signers(world)) == 2


async def test_no_response_outlives_its_ca(ec_key: ec.EllipticCurvePrivateKey) -> None:
    world = make_world(pki.local_ca(ec_key), ocsp_validity=VALIDITY)
    end = world.ca.ceilings.ca_not_after
    world.clock.seconds = end - DAY
    await world.issue(not_after=end)
    await world.orders.responder.handle(record(world))

    (event,) = responses(world)
    assert event.next_update == end
    world.clock.seconds = end + 1
    await world.orders.responder.look()
    assert responses(world) == []


# What nobody may bring about


@pytest.mark.parametrize("changes", [{"serial": serial(9)}, {"ca_spki_sha256": "00" * 32}])
async def test_a_record_of_something_else_is_not_answered(
    world: World, responder: Responder, changes: dict[str, Any]
) -> None:
    await world.issue(**changes)
    await responder.handle(record(world))

    assert responses(world) == []


async def test_a_strangers_record_or_status_is_not_answered(
    world: World, responder: Responder
) -> None:
    await world.issue(by=STRANGER)
    await responder.handle(record(world))
    assert responses(world) == []

    await world.issue(serial(2))
    await world.revoke(serial(2), by=STRANGER)
    await responder.handle(record(world, serial(2)))
    assert newest(world, serial(2)).certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_a_forged_response_does_not_hide_that_one_is_due(
    world: World, responder: Responder
) -> None:
    await world.issue()
    event = OcspResponseSigned(
        issuer=ISSUER,
        serial=SERIAL,
        ca_spki_sha256=world.ca.pin,
        this_update=NOW,
        next_update=NOW + VALIDITY,
        not_after=NOW + DAY,
        position=0,
        responses={"sha1": b"forged"},
    )
    await append_signed(world.bus, ocsp_response(ISSUER, SERIAL, 0), event, STRANGER)
    await responder.handle(record(world))

    stored = messages_of(world.bus, OCSP)
    assert [each.subject for each in stored] == [
        ocsp_response(ISSUER, SERIAL, 0),
        ocsp_response(ISSUER, SERIAL, 1),
    ]


async def test_a_status_recorded_in_between_wins(
    world: World, responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another issuer revokes after this one has read that the certificate is good."""
    await world.issue()
    signed, first = responder._signed, [True]

    async def slowly(*given: Any) -> OcspResponseSigned:
        event = await signed(*given)
        if first:
            first.clear()
            await world.revoke()
            await another(world).publish(ISSUER, SERIAL)
        return event

    monkeypatch.setattr(responder, "_signed", slowly)
    await responder.handle(record(world))

    assert newest(world).certificate_status is ocsp.OCSPCertStatus.REVOKED
