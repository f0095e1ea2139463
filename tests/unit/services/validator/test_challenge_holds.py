"""A held enrollment and its challenge: taken when the device asked, and not asked again after."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.access import Access
from services.validator.challenges.device_state import DeviceAnswer, DeviceQuestion, DeviceStateGate
from shared.log.envelope import Stored, authenticate
from shared.log.events.commands import ChallengeCancelled, ChallengeCreated
from shared.log.events.enrollment import EnrollmentApproved, EnrollmentHeld, HoldDecided
from shared.log.one_time import one_time_digest, write_one_time
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import one_time_cancelled, one_time_created, parse_subject
from shared.runtime.endpoint import Endpoint
from tests.fakes.bus_through import BusThrough, Trouble
from tests.support.accesses import accepting
from tests.support.enrollers import (
    CONNECTOR,
    DAY,
    OTHER_CONNECTOR,
    SUBJECT,
    ask,
    by_token,
    claims,
    evaluate_all,
    failed,
    holder,
    judgement,
    on_bus,
    places,
    replicas,
    result,
    token,
    verdict,
)
from tests.support.messages import Identity
from tests.support.validators import World, validating
from tests.support.world import (
    NOW,
    OPERATOR,
    PROFILE,
    TRUSTED_VALIDATORS,
    append_signed,
    messages_of,
)
from tests.unit.services.validator.http_services import Service, http, serving

CHALLENGE = write_one_time("0123456789ABCDEFGHJKMNPQR")


class DiedError(Exception):
    """Stands for kill -9."""


@dataclass
class Desk:
    """A validator with a manual profile that takes tokens, and the operator."""

    world: World

    def accept(self, access: Access) -> None:
        self.world.accept(access)

    def holds(self) -> list[Stored]:
        return messages_of(self.world.bus, "ENROLL_0", ".hold")

    def hold(self, request: Stored) -> EnrollmentHeld:
        place = parse_subject(request.subject)[0].subject(Stage.HOLD)
        (stored,) = [each for each in self.holds() if each.subject == place]
        event = authenticate(stored, TRUSTED_VALIDATORS, Stage.HOLD, request.sha256())
        assert isinstance(event, EnrollmentHeld)
        return event

    async def held(self, password: str, number: int = 0) -> Stored:
        """A request that waits for the operator."""
        request = await ask(self.world, holder(number), password)
        await self.world.consumer.handle(request)
        assert self.hold(request)
        return request

    async def decision(self, request: Stored, *, approved: bool = True) -> Stored:
        place = parse_subject(request.subject)[0].subject(Stage.DECISION)
        event = HoldDecided(request_sha256=request.sha256(), approved=approved, operator="op")
        return await append_signed(self.world.bus, place, event, OPERATOR)

    async def decided(self, request: Stored, *, approved: bool = True) -> Reason | str:
        """The verdict after the operator's word."""
        await self.world.consumer.handle(await self.decision(request, approved=approved))
        return result(self.world, request)


@pytest.fixture
async def deps(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Desk]:
    async with validating(device, ra, ec_key, manual=True) as world:
        world.accept(by_token())
        yield Desk(world)


# The hold


async def test_a_hold_says_who_vouched_and_what_the_gates_compared(deps: Desk) -> None:
    request = await deps.held(token())

    hold = deps.hold(request)
    assert hold.claim is not None
    assert (hold.claim.issuer, hold.claim.subject) == (CONNECTOR.name, SUBJECT)
    assert [gate.gate for gate in hold.gates][-2:] == ["replay", "device_rate"]
    assert all(gate.passed for gate in hold.gates)
    assert (len(claims(deps.world)), places(deps.world)) == (1, 1)


async def test_what_the_challenge_refuses_is_not_held(deps: Desk) -> None:
    first = await deps.held(token())
    request = await ask(deps.world, holder(1), token())

    assert await judgement(deps.world, request) == Reason.REPLAY
    assert [each.subject for each in deps.holds()] == [
        parse_subject(first.subject)[0].subject(Stage.HOLD)
    ]


async def test_a_held_request_that_is_delivered_again_is_counted_once(deps: Desk) -> None:
    request = await deps.held(token())
    before = deps.holds()
    await evaluate_all(replicas(deps.world), [request] * 8)

    assert deps.holds() == before
    assert (len(claims(deps.world)), places(deps.world)) == (1, 1)
    assert deps.world.verdicts() == []


async def test_of_fifty_keys_with_one_token_one_is_held(deps: Desk) -> None:
    requests = [await ask(deps.world, holder(number), token()) for number in range(50)]
    await evaluate_all(replicas(deps.world), requests)

    assert len(deps.holds()) == 1
    assert len(deps.world.verdicts()) == 49


async def test_held_enrollments_take_their_devices_places(deps: Desk) -> None:
    for number in range(3):
        await deps.held(token(f"n-{number}"), number)
    request = await ask(deps.world, holder(3), token("n-3"))

    assert await judgement(deps.world, request) == Reason.RATE_LIMITED


# After it


async def test_the_verdict_has_each_gate_once_and_who_vouched(deps: Desk) -> None:
    request = await deps.held(token())
    hold = deps.hold(request)
    assert await deps.decided(request) == "approved"

    event = verdict(deps.world, request)
    assert event.claim == hold.claim
    assert [gate.gate for gate in event.gates] == [gate.gate for gate in hold.gates]
    assert event.gates == hold.gates


async def refuse_the_device(deps: Desk) -> None:
    async def ill(_: DeviceQuestion) -> DeviceAnswer:
        return DeviceAnswer(allow=False)

    deps.accept(by_token(device_state=DeviceStateGate(ill, 5)))


async def other_anchors(deps: Desk) -> None:
    deps.accept(by_token(OTHER_CONNECTOR))


async def no_tokens_any_more(deps: Desk) -> None:
    deps.accept(accepting(passwords=("s3cret",)))


async def smaller_limit(deps: Desk) -> None:
    deps.accept(by_token(limit=1))


async def weeks(deps: Desk) -> None:
    """The token, its record and its device's window have all ended."""
    deps.world.clock.seconds += 40 * DAY


CHANGES = [refuse_the_device, other_anchors, no_tokens_any_more, smaller_limit, weeks]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_changes_about_challenges_during_a_hold_does_not_matter(
    deps: Desk, change: Callable[[Desk], Any]
) -> None:
    request = await deps.held(token())
    before = (claims(deps.world), places(deps.world))
    await change(deps)

    assert await deps.decided(request) == "approved"
    assert (claims(deps.world), places(deps.world)) == before


@pytest.mark.parametrize("change", CHANGES)
async def test_the_kind_of_challenge_on_record_stays_that_of_the_hold(
    deps: Desk, change: Callable[[Desk], Any]
) -> None:
    """Success is counted under it."""
    request = await deps.held(token())
    assert deps.hold(request).facts.challenge == "signed"
    await change(deps)
    assert await deps.decided(request) == "approved"

    event = verdict(deps.world, request)
    assert event.facts is not None
    assert event.facts.challenge == "signed"


async def test_the_gates_of_the_profile_are_asked_again(deps: Desk) -> None:
    request = await deps.held(token())
    deps.world.allow(key_types=frozenset({"rsa:2048"}))

    assert await deps.decided(request) == Reason.KEY_NOT_ALLOWED


async def test_a_decision_delivered_again_to_another_validator_changes_nothing(
    deps: Desk,
) -> None:
    request = await deps.held(token())
    decision = await deps.decision(request)
    await evaluate_all(replicas(deps.world), [decision, request] * 4)

    assert result(deps.world, request) == "approved"
    assert (len(claims(deps.world)), places(deps.world)) == (1, 1)


async def test_request_and_decision_may_meet_on_two_validators(deps: Desk) -> None:
    """The request is delivered again while the decision is worked on."""
    request = await deps.held(token())
    decision = await deps.decision(request)
    first, second = replicas(deps.world, 2)
    await asyncio.gather(first.handle(request), second.handle(decision))

    assert result(deps.world, request) == "approved"
    assert len(deps.holds()) == 1


async def test_a_denied_enrollment_gives_its_place_back_and_keeps_its_token(deps: Desk) -> None:
    requests = [await deps.held(token(f"n-{number}"), number) for number in range(3)]
    assert await deps.decided(requests[0], approved=False) == Reason.DENIED
    await deps.held(token("n-3"), 3)
    thief = await ask(deps.world, holder(4), token("n-0"))

    assert await judgement(deps.world, thief) == Reason.REPLAY
    assert places(deps.world) == 3


async def test_a_new_attempt_after_a_denial_is_held_anew(deps: Desk) -> None:
    first = await deps.held(token())
    assert await deps.decided(first, approved=False) == Reason.DENIED
    again = await ask(deps.world, holder(), token(), attempt=1)
    await deps.world.consumer.handle(again)

    assert deps.hold(again).claim == deps.hold(first).claim
    assert places(deps.world) == 1


async def test_after_an_approved_hold_that_came_to_nothing_the_holder_may_try_again(
    deps: Desk,
) -> None:
    first = await deps.held(token())
    assert await deps.decided(first) == "approved"
    await failed(deps.world, first)
    again = await ask(deps.world, holder(), token(), attempt=1)
    await deps.world.consumer.handle(again)

    assert await deps.decided(again) == "approved"
    assert (len(claims(deps.world)), places(deps.world)) == (2, 1)


async def test_a_hold_of_one_request_opens_no_other(deps: Desk) -> None:
    """A second request with the token of a held one, and an operator's word about it."""
    await deps.held(token())
    thief = await ask(deps.world, holder(1), token())
    assert await judgement(deps.world, thief) == Reason.REPLAY
    await deps.world.consumer.handle(await deps.decision(thief))

    assert result(deps.world, thief) == Reason.REPLAY


async def test_a_validator_may_die_before_or_after_any_of_its_calls(deps: Desk) -> None:
    """At the request, then at the decision: one hold, one verdict, one place."""
    deps.accept(by_token(limit=0))
    ends = 0
    for at in itertools.count():
        request = await ask(deps.world, holder(), token(f"mortal-{at}"))
        happened = await outlived(deps, at, request)
        assert deps.hold(request)
        decision = await deps.decision(request)
        happened |= await outlived(deps, at, decision)

        assert result(deps.world, request) == "approved"
        ends += 1
        if not happened:
            break
    assert ends > 8
    assert len(claims(deps.world)) == ends


async def outlived(deps: Desk, at: int, stored: Stored) -> bool:
    """Handled by one that dies, then by another; whether it did die."""
    trouble = Trouble(at, DiedError)
    try:
        await on_bus(deps.world, BusThrough(deps.world.bus, trouble)).handle(stored)
    except DiedError:
        await on_bus(deps.world, deps.world.bus).handle(stored)
    return trouble.happened


# Other verifiers


async def test_a_webhook_is_not_asked_again(deps: Desk) -> None:
    async with serving(Service()) as service:
        deps.accept(accepting(by_webhook=Endpoint(service.url, 10.0)))
        request = await deps.held("anything")
        service.say = http(200, b'{"allow": false}')

        assert await deps.decided(request) == "approved"
    assert len(service.posted) == 1


async def test_a_one_time_challenge_may_end_or_be_taken_back_during_a_hold(deps: Desk) -> None:
    deps.accept(accepting(by_one_time=True))
    digest = one_time_digest(PROFILE, CHALLENGE)
    made = ChallengeCreated(profile=PROFILE, expires_at=NOW + 60, operator="op")
    await append_signed(deps.world.bus, one_time_created(PROFILE, digest), made, OPERATOR)
    request = await deps.held(CHALLENGE)
    deps.world.clock.seconds += 3600
    taken = ChallengeCancelled(profile=PROFILE, operator="op")
    await append_signed(deps.world.bus, one_time_cancelled(PROFILE, digest, 0), taken, OPERATOR)

    assert await deps.decided(request) == "approved"
    claim = verdict(deps.world, request).claim
    assert claim is not None
    assert claim.issuer == "operator"


async def test_a_password_that_was_changed_during_a_hold_was_good_when_it_was_given(
    deps: Desk,
) -> None:
    deps.accept(accepting(passwords=("old",)))
    request = await deps.held("old")
    deps.accept(accepting(passwords=("new",)))

    assert await deps.decided(request) == "approved"
    assert isinstance(verdict(deps.world, request), EnrollmentApproved)
