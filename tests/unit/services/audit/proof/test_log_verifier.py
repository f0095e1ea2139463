"""The log verifier names what is wrong with an event."""

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.audit.proof.log_verifier import Keys, LogVerifier
from tests.support.world import (
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    TRUSTED_VALIDATORS,
    messages_of,
)
from tests.unit.services.validator.accesses import accepting
from tests.unit.services.validator.challenges.enrollers import ask, holder, issued, judged
from tests.unit.services.validator.validators import World, validating
from tests.unit.shared.scep.messages import Identity

PASSWORD = "s3cret-of-the-profile"


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        found.accept(accepting(passwords=(PASSWORD,)))
        yield found


def findings(world: World) -> list[str]:
    verifier = LogVerifier(Keys(TRUSTED_VALIDATORS, TRUSTED_ISSUERS, TRUSTED_OPERATORS, {}))
    return [verifier.examine(stored) for stored in messages_of(world.bus, "ENROLL_0")]


async def test_an_outcome_without_a_verdict_is_out_of_order(world: World) -> None:
    await issued(world, await ask(world, holder(), PASSWORD))

    request, outcome = findings(world)
    assert request == ""
    assert outcome == "out of order: CertificateIssued cannot follow requested"


async def test_a_verdict_after_its_request_is_in_order(world: World) -> None:
    await judged(world, await ask(world, holder(), "wrong"))

    assert findings(world) == ["", ""]
