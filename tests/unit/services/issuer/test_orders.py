"""Orders at a CA outside: recorded before it is asked, found again, never made twice."""

import asyncio
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.connectors.connector import (
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Refused,
    Result,
    UnknownOutcome,
)
from services.issuer.connectors.local import LocalConnector
from shared.limits import PROFILE_PLACES
from shared.log.envelope import Message, authenticate_as
from shared.log.events.certificates import CertificateRecorded, KeyCompromised
from shared.log.events.enrollment import CertificateIssued, CertificateOrdered
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import certificate_issued, key_compromised, serial_token
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError
from shared.scep.certificate import read_certificate
from shared.x509.key_ids import spki_sha256
from tests.support import pki
from tests.support.templates import template
from tests.support.world import (
    ISSUER,
    ISSUING,
    REQUEST_SHA256,
    STRANGER,
    TRUSTED_ISSUERS,
    append,
    approved,
    signed_event,
)
from tests.unit.services.issuer.issuers import ENROLLMENT, settings
from tests.unit.services.issuer.outside import LEASE, Outside, make_outside


@pytest.fixture
async def outside(tmp_path: Path) -> Outside:
    return await make_outside(tmp_path)


async def test_the_order_is_recorded_before_the_ca_is_asked(outside: Outside) -> None:
    outside.connector.says.append(asyncio.CancelledError())
    verdict = await outside.world.verdict()
    with pytest.raises(asyncio.CancelledError):
        await outside.handle(verdict)
    (order,) = outside.orders()

    assert (order.request_sha256, order.issuer) == (REQUEST_SHA256, ISSUER)
    assert outside.world.outcomes() == []
    assert outside.world.records() == []


async def test_the_certificate_is_recorded_and_issued(outside: Outside) -> None:
    await outside.handle(await outside.world.verdict())
    issued = outside.world.outcome()
    records = [
        authenticate_as(CertificateRecorded, each, TRUSTED_ISSUERS)
        for each in outside.world.records()
    ]

    assert isinstance(issued, CertificateIssued)
    assert [each.serial for each in records] == [issued.serial] * 2
    assert records[0].not_after == issued.not_after
    assert outside.made() == 1
    assert [each.key for each in outside.orders()] != [""]


async def test_after_a_kill_the_order_waits_for_the_lease_and_is_found(outside: Outside) -> None:
    """The CA made the certificate, and whoever asked for it was killed."""
    outside.connector.says.append(asyncio.CancelledError())
    verdict = await outside.world.verdict()
    with pytest.raises(asyncio.CancelledError):
        await outside.handle(verdict)
    another = outside.another()
    with pytest.raises(DeferredError):
        await another.handle(verdict)
    assert outside.connector.calls == ["issue"]
    outside.world.clock.seconds += LEASE + 2
    outside.connector.calls.append("-")
    await another.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.connector.calls == ["issue", "-", "find"]
    assert outside.made() == 1
    assert len(outside.orders()) == 1


async def test_after_a_kill_before_the_ca_was_asked_it_is_asked_once(outside: Outside) -> None:
    object.__setattr__(outside.connector, "makes", False)
    outside.connector.says.append(asyncio.CancelledError())
    verdict = await outside.world.verdict()
    with pytest.raises(asyncio.CancelledError):
        await outside.handle(verdict)
    object.__setattr__(outside.connector, "makes", True)
    outside.world.clock.seconds += LEASE + 2
    await outside.another().handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.made() == 1


@pytest.mark.parametrize(
    "said", [Pending(), UnknownOutcome("cut off"), CaUnavailableError("away"), TimeoutError()]
)
async def test_an_outcome_that_is_not_known_yet_is_asked_for_later(
    outside: Outside, said: Result | Exception
) -> None:
    """The device polls meanwhile: nothing is written that would end its enrollment."""
    outside.connector.says.append(said)
    verdict = await outside.world.verdict()
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    assert outside.world.outcomes() == []
    outside.world.clock.seconds += LEASE + 2
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.made() == 1


async def test_what_the_ca_refuses_is_refused_with_its_words(outside: Outside) -> None:
    outside.connector.says.append(Refused("the name is taken"))
    await outside.handle(await outside.world.verdict())

    assert outside.failure().reason is Reason.CA_REFUSED
    assert outside.failure().detail == "the name is taken"


async def test_another_certificate_than_was_approved_is_not_passed_on(outside: Outside) -> None:
    foreign = pki.local_ca(ec.derive_private_key(12, ec.SECP256R1()))
    verdict = await outside.world.verdict()
    order = Order(ENROLLMENT.prefix(), template(outside.world.ca.certificate), verdict.sha256())
    outside.connector.says.append(Issued(foreign.sign(foreign.draft(order.template, "x"))))
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.UNREADABLE
    assert "not signed by the CA that the profile pins" in outside.failure().detail
    assert outside.world.records() == []
    assert outside.revoked() == []  # the number may be that of an honest certificate


async def test_an_approval_that_ends_while_the_ca_works_is_carried_out(outside: Outside) -> None:
    outside.connector.says.append(Pending())
    verdict = await outside.world.verdict()
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    event = approved(template(outside.world.ca.certificate))
    outside.world.clock.seconds = event.valid_until + 1
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)


async def test_an_approval_that_has_ended_before_any_order_is_refused(outside: Outside) -> None:
    verdict = await outside.world.verdict()
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.VERDICT_EXPIRED
    assert outside.connector.calls == []


async def test_an_order_is_not_given_up_while_the_ca_may_carry_it_out(outside: Outside) -> None:
    outside.connector.says.append(Pending())
    verdict = await outside.world.verdict()
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    outside.connector.finds.append(Pending())
    with pytest.raises(DeferredError):
        await outside.world.consumer.give_up(verdict)
    outside.world.clock.seconds += LEASE + 2
    await outside.world.consumer.give_up(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)


async def test_a_forged_order_neither_holds_up_nor_replaces_the_true_one(outside: Outside) -> None:
    subject = ENROLLMENT.subject(Stage.ORDER)
    verdict = await outside.world.verdict()
    forged = CertificateOrdered(
        request_sha256="00" * 32, issuer=ISSUER, key="f" * 32, lease_until=2**40
    )
    await outside.world.bus.append(subject, signed_event(forged, subject, STRANGER))
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.made() == 1


async def test_a_ca_that_does_not_answer_holds_up_its_own_orders_alone(outside: Outside) -> None:
    outside.world.consumer._places[ISSUER] = Places(most=0)
    with pytest.raises(DeferredError):
        await outside.handle(await outside.world.verdict())

    assert outside.connector.calls == []
    assert outside.orders() == []


def test_a_ca_outside_takes_no_places_of_the_others(outside: Outside) -> None:
    plain = settings(LocalConnector(outside.world.ca))

    assert plain.places() == plain.concurrency
    assert outside.world.settings.places() == plain.concurrency + PROFILE_PLACES


async def test_more_orders_than_places_wait_for_them_and_are_not_given_up(outside: Outside) -> None:
    verdict = await outside.world.verdict()
    outside.world.consumer._places[ISSUER] = Places(most=0)
    with pytest.raises(DeferredError):
        await outside.world.consumer.give_up(verdict)
    assert outside.world.outcomes() == []
    del outside.world.consumer._places[ISSUER]
    await outside.world.consumer.give_up(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)


async def test_an_order_whose_place_was_forged_is_not_given_up_either(outside: Outside) -> None:
    subject = ENROLLMENT.subject(Stage.ORDER)
    forged = CertificateOrdered(request_sha256="", issuer=ISSUER, key="f" * 32, lease_until=0)
    await outside.world.bus.append(subject, signed_event(forged, subject, STRANGER))
    verdict = await outside.pend()
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    await outside.world.consumer.give_up(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)


async def test_after_the_end_of_the_approval_nothing_is_ordered_again(outside: Outside) -> None:
    object.__setattr__(outside.connector, "makes", False)
    verdict = await outside.pend()
    object.__setattr__(outside.connector, "makes", True)
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.VERDICT_EXPIRED
    assert outside.made() == 0


async def test_a_key_that_was_compromised_meanwhile_has_its_certificate_revoked(
    outside: Outside,
) -> None:
    verdict = await outside.pend()
    key = spki_sha256(template(outside.world.ca.certificate).spki)
    place = key_compromised(key, "0")
    mark = KeyCompromised(request_sha256="00" * 32, serial="40")
    await append(outside.world.bus, place, signed_event(mark, place, ISSUING))
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.KEY_COMPROMISED
    (serial,) = outside.revoked()
    assert f"the CA revoked its certificate {serial}" in outside.failure().detail


async def test_a_refusal_waits_for_an_order_that_the_ca_has_not_decided(outside: Outside) -> None:
    verdict = await outside.pend()
    outside.connector.finds.append(Pending())
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    with pytest.raises(DeferredError):
        await outside.handle(verdict)

    assert outside.world.outcomes() == []


async def test_a_certificate_whose_record_is_planted_is_not_passed_on(
    outside: Outside,
) -> None:
    verdict = await outside.pend()
    order = Order(ENROLLMENT.prefix(), template(outside.world.ca.certificate), verdict.sha256())
    found = await outside.connector.find(order)
    assert found is not None
    serial = read_certificate(found.certificate).serial
    place = certificate_issued(ISSUER, serial_token(serial))
    await outside.world.bus.append(place, Message(b"planted", {}))
    await outside.handle(verdict)

    assert "record of the serial number is forged" in outside.failure().detail
    assert outside.revoked() == [serial_token(serial)]


async def test_a_certificate_of_another_device_is_not_revoked_for_a_number_used_twice(
    outside: Outside,
) -> None:
    verdict = await outside.pend()
    order = Order(ENROLLMENT.prefix(), template(outside.world.ca.certificate), verdict.sha256())
    found = await outside.connector.find(order)
    serial = serial_token(read_certificate(found.certificate).serial)
    place = certificate_issued(ISSUER, serial)
    record = CertificateRecorded(
        request_sha256="00" * 32, enrollment="enroll.0.demo.a.b.0", spki_sha256="11" * 32,
        subject="CN=another", not_before=0, not_after=1, serial=serial,
        ca_spki_sha256=outside.connector.current.pin, names_sha256="",
    )  # fmt: skip
    await append(outside.world.bus, place, signed_event(record, place, ISSUING))
    await outside.handle(verdict)

    assert "already used the serial number" in outside.failure().detail
    assert outside.revoked() == []


@pytest.mark.parametrize("fault", [OSError("refused"), ValueError("no JSON")])
async def test_a_connector_that_raises_leaves_the_outcome_unknown(
    outside: Outside, fault: Exception
) -> None:
    outside.connector.says.append(fault)
    verdict = await outside.world.verdict()
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    outside.world.clock.seconds += LEASE + 2
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.made() == 1


async def test_a_connector_that_returns_something_else_is_a_fault(outside: Outside) -> None:
    outside.connector.says.append("soon")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a connector returned str"):
        await outside.handle(await outside.world.verdict())
