"""Withdrawals: validators revoke what their connection's service disowns, and nothing else."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.log.envelope import EventSigner, Stored
from shared.log.events.commands import RevocationReason, WithdrawalOrdered
from shared.log.events.enrollment import CertificateIssued
from shared.log.stages import Stage
from shared.log.subjects import revocation_command, withdrawal_command
from tests.support import pki
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    OPERATOR,
    REQUEST_SHA256,
    SERIAL,
    VALIDATOR,
    append_signed,
    messages_of,
)
from tests.unit.services.issuer.issuers import ENROLLMENT
from tests.unit.services.issuer.revocations import World, make_world

KEY = ec.derive_private_key(11, ec.SECP256R1())
HOLD = RevocationReason.CERTIFICATE_HOLD


@pytest.fixture
async def world() -> World:
    return make_world(pki.local_ca(KEY))


async def issue(world: World, connection: str = "contoso") -> None:
    """A certificate that a connection's service is notified of, or of none."""
    await world.issue()
    event = CertificateIssued(
        request_sha256=REQUEST_SHA256,
        issuer=ISSUER,
        serial=SERIAL,
        certificate=b"\x30\x00",
        not_after=NOW + 86400,
        confirmed_by=connection,
        withheld=True,
    )
    await append_signed(world.bus, ENROLLMENT.subject(Stage.OUTCOME), event, ISSUING)


async def withdraw(
    world: World, by: EventSigner = VALIDATOR, subject: str = "", **changes: Any
) -> Stored:
    values: dict[str, Any] = {
        "issuer": ISSUER,
        "serial": SERIAL,
        "attempt": 0,
        "reason": RevocationReason.CESSATION_OF_OPERATION,
        "operator": "contoso",
        "cause": "unconfirmed",
    }
    event = WithdrawalOrdered(**(values | changes))
    place = subject or withdrawal_command(event.issuer, event.serial, event.attempt)
    return await append_signed(world.bus, place, event, by)


async def test_a_validator_withdraws_what_its_connection_disowns(world: World) -> None:
    await issue(world)
    order = await withdraw(world)
    await world.orders.handle(order)

    assert world.answer(order).done
    assert await world.revoked() == [SERIAL.lstrip("0")]


@pytest.mark.parametrize("connection", ["", "fabrikam"])
async def test_other_certificates_are_not_its_own(world: World, connection: str) -> None:
    await issue(world, connection)
    order = await withdraw(world)
    await world.orders.handle(order)

    answer = world.answer(order)
    assert (answer.done, answer.detail) == (
        False,
        "the connection is not notified of this certificate",
    )
    assert world.heads() == []


async def test_an_operators_key_gives_no_withdrawal_and_a_validators_no_revocation(
    world: World,
) -> None:
    await issue(world)
    for order in (
        await withdraw(world, by=OPERATOR),
        await world.order(by=VALIDATOR),
        await withdraw(world, subject=revocation_command(ISSUER, SERIAL, 7), attempt=7),
    ):
        await world.orders.handle(order)

    assert not [s for s in messages_of(world.bus, "OPS") if s.subject.endswith(".answered")]
    assert world.heads() == []


async def test_a_certificate_on_hold_is_revoked_for_good(world: World) -> None:
    await issue(world)
    held = await world.order(reason=HOLD)
    await world.orders.handle(held)
    order = await withdraw(world)
    await world.orders.handle(order)
    released = await world.order(reason=RevocationReason.REMOVE_FROM_CRL, attempt=1)
    await world.orders.handle(released)

    assert world.answer(order).done
    assert not world.answer(released).done


async def test_a_revoked_certificate_keeps_its_reason(world: World) -> None:
    await issue(world)
    first = await world.order(reason=RevocationReason.KEY_COMPROMISE)
    await world.orders.handle(first)
    order = await withdraw(world)
    await world.orders.handle(order)

    assert world.answer(order).done
    (entry,) = await world.crl()
    reason = entry.extensions[0].value
    assert "key_compromise" in str(reason)
