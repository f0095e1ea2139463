"""Withdrawals revoke for one reason: they neither release certificates nor compromise keys."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.log.events.commands import RevocationReason, WithdrawalOrdered
from shared.log.events.enrollment import CertificateIssued
from shared.log.stages import Stage
from shared.log.subjects import withdrawal_command
from tests.support import pki
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    REQUEST_SHA256,
    SERIAL,
    VALIDATOR,
    append_signed,
    messages_of,
)
from tests.unit.services.issuer.issuers import ENROLLMENT
from tests.unit.services.issuer.revocations import make_world

KEY = ec.derive_private_key(11, ec.SECP256R1())
OTHERS = sorted(set(RevocationReason) - {RevocationReason.CESSATION_OF_OPERATION})


@pytest.mark.parametrize("reason", OTHERS)
async def test_a_withdrawal_for_another_reason_changes_nothing(reason: RevocationReason) -> None:
    world = make_world(pki.local_ca(KEY))
    await world.issue()
    issued = CertificateIssued(
        request_sha256=REQUEST_SHA256, issuer=ISSUER, serial=SERIAL, certificate=b"\x30\x00",
        not_after=NOW + 86400, confirmed_by="contoso", withheld=True,
    )  # fmt: skip
    await append_signed(world.bus, ENROLLMENT.subject(Stage.OUTCOME), issued, ISSUING)
    held = await world.order(reason=RevocationReason.CERTIFICATE_HOLD)
    await world.orders.handle(held)
    before = len(messages_of(world.bus, "CERTS"))

    forged = WithdrawalOrdered(
        issuer=ISSUER, serial=SERIAL, attempt=0, reason=reason, operator="contoso", cause="x"
    )
    order = await append_signed(world.bus, withdrawal_command(ISSUER, SERIAL, 0), forged, VALIDATOR)
    await world.orders.handle(order)

    assert not world.answer(order).done
    assert len(messages_of(world.bus, "CERTS")) == before
