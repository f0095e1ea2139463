"""The log verifier names what is wrong with an event."""

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.audit.proof.log_verifier import Keys, LogVerifier
from shared.log.envelope import Stored
from shared.log.events.enrollment import CertificateOrdered
from shared.log.stages import Stage
from shared.log.subjects import parse_subject
from tests.support.accesses import accepting
from tests.support.enrollers import ask, holder, issued, judged
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    append_signed,
    messages_of,
)

PASSWORD = "s3cret-of-the-profile"


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        found.accept(accepting(passwords=(PASSWORD,)))
        yield found


async def ordered(world: World, request: Stored) -> None:
    """What an issuer writes before it asks an external CA."""
    event = CertificateOrdered(
        request_sha256=request.sha256(), issuer=ISSUER, key="0" * 32, lease_until=NOW
    )
    place = parse_subject(request.subject)[0].subject(Stage.ORDER)
    await append_signed(world.bus, place, event, ISSUING)


def findings(world: World) -> list[str]:
    verifier = LogVerifier(Keys(TRUSTED_VALIDATORS, TRUSTED_ISSUERS, TRUSTED_OPERATORS, {}))
    return [verifier.examine(stored) for stored in messages_of(world.bus, "ENROLL_0")]


async def test_an_outcome_without_a_verdict_is_out_of_order(world: World) -> None:
    await issued(world, await ask(world, holder(), PASSWORD))

    request, outcome = findings(world)
    assert request == ""
    assert outcome == "out of order: CertificateIssued cannot follow requested"


async def test_an_order_at_an_external_ca_is_in_order_between_verdict_and_outcome(
    world: World,
) -> None:
    request = await ask(world, holder(), PASSWORD)
    await judged(world, request)
    await ordered(world, request)

    assert findings(world) == ["", "", ""]


async def test_an_order_without_a_verdict_is_out_of_order(world: World) -> None:
    await ordered(world, await ask(world, holder(), PASSWORD))

    assert findings(world)[1] == "out of order: CertificateOrdered cannot follow requested"


async def test_a_verdict_after_its_request_is_in_order(world: World) -> None:
    await judged(world, await ask(world, holder(), "wrong"))

    assert findings(world) == ["", ""]
