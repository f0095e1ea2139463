"""A profile that this validator left out at its start: its requests wait for one that knows it."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shared.log.events.enrollment import EnrollmentApproved, EnrollmentRejected
from shared.log.reasons import Reason
from tests.support.messages import Identity
from tests.support.validators import World, validating

LEFT_OUT: Final = "lab"
REASON: Final = "profile lab: anchors.pem: the certificate of CN=connector has expired"


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        live = found.evaluator.live
        live.current = replace(live.current, left_out={LEFT_OUT: REASON})
        yield found


async def test_a_request_for_it_is_not_refused_for_good(world: World) -> None:
    """The gateway serves it, other replicas may know it: a verdict here would be the last word."""
    request = await world.request(LEFT_OUT)
    with suppress(Exception):
        await world.consumer.handle(request)

    assert world.verdicts() == []


async def test_a_request_for_what_is_no_profile_at_all_is_refused(world: World) -> None:
    request = await world.request("unheard")
    await world.consumer.handle(request)
    verdict = world.verdict(request)

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.NOT_A_PROFILE


async def test_the_other_profiles_are_judged_as_ever(world: World) -> None:
    request = await world.request()
    await world.consumer.handle(request)

    assert isinstance(world.verdict(request), EnrollmentApproved)
