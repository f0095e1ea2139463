"""Death at every await between validate, issue, notify and reply, and two handlers at once.

Intune's journal judges: it is notified once of each certificate that a device gets.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.issuer.existing import OutcomeMissingError
from services.validator.access import Access
from services.validator.confirmation import Confirmer
from services.validator.service import Resuming
from shared.log.envelope import Stored, authenticate
from shared.log.events.commands import ResumeOrdered
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
)
from shared.log.stages import Stage
from shared.log.streams import REPLAYS
from shared.log.subjects import parse_subject, resume_command
from shared.runtime.places import Places
from shared.runtime.worker import DeferredError, NotServedError
from tests.fakes.bus_through import Step, Trouble, racing
from tests.support.intune import ANOTHER_TENANT, BUDGET, TENANT, intune_access, nothing
from tests.support.messages import CHALLENGE, Identity
from tests.support.world import (
    ACCESS,
    OPERATOR,
    PROFILE,
    TRUSTED_ISSUERS,
    TRUSTED_OPERATORS,
    append_signed,
    messages_of,
)
from tests.unit.services.validator.intune_steps import (
    FIRST,
    OTHER,
    DiedError,
    Steps,
    settle,
    stepping,
)

SEEDS = 8


@pytest.fixture
async def steps(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Steps]:
    async with stepping(device, ra, ec_key) as found:
        yield found


# Death at every await


@pytest.mark.parametrize("survivor", [FIRST, OTHER])
@pytest.mark.parametrize("code", ["Success", "ChallengeExpired"])
async def test_whenever_a_process_dies_intune_and_the_device_agree(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, survivor: str, code: str
) -> None:
    """Only a death between the record that a call begins and its result costs a certificate."""
    ends = set()
    for at in itertools.count():
        async with stepping(device, ra, ec_key) as steps:
            steps.journal.code = code
            trouble = Trouble(at, DiedError)
            request, cut = await enroll(steps, trouble, survivor)
            given = steps.check(request)
            assert given == (code == "Success" and not cut)
            ends.add((given, cut))
        if not trouble.happened:
            break
    assert at > 40
    assert ends >= {(False, True), (code == "Success", False)}


async def enroll(steps: Steps, trouble: Trouble, survivor: str) -> tuple[Stored, bool]:
    """An enrollment in which whoever is at work at `trouble` dies.

    Returns its request, and whether a call had begun and had no result yet.
    """
    request = await steps.request()
    await outlived(lambda step: steps.validator(step).handle(request), trouble)
    verdict = steps.of(request, Stage.VERDICT)
    await outlived(lambda step: steps.issuer(step).handle(verdict), trouble)
    outcome = steps.of(request, Stage.OUTCOME)
    try:
        await steps.confirmer(trouble).handle(outcome)
    except DiedError:
        cut = steps.begun() and not steps.stored(request, Stage.CONFIRMATION)
        after = steps.confirmer(name=survivor)
        await settle(steps, lambda: after.handle(outcome))
        return request, cut
    return request, False


async def outlived(handle: Callable[[Step], Awaitable[object]], trouble: Trouble) -> None:
    """Handled by one that may die, then by another if it did."""
    try:
        await handle(trouble)
    except DiedError:
        await handle(nothing)


@pytest.mark.parametrize("code", ["Success", "ChallengeExpired"])
async def test_whenever_a_process_dies_that_resumes_a_certificate_the_next_one_ends_it(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey, code: str
) -> None:
    """A consumer has skipped the outcome, and the sweeper's command is delivered twice."""
    for at in itertools.count():
        async with stepping(device, ra, ec_key) as steps:
            steps.journal.code = code
            outcome = await steps.issued()
            trouble = Trouble(at, DiedError)
            order = await resume_order(steps, outcome)
            await outlived(lambda step: resuming(steps, step).handle(order), trouble)  # noqa: B023
            steps.check(outcome)
        if not trouble.happened:
            break
    assert at > 20


async def resume_order(steps: Steps, outcome: Stored) -> Stored:
    enrollment, _ = parse_subject(outcome.subject)
    event = ResumeOrdered(
        enrollment=enrollment.prefix(), stage=Stage.CONFIRMATION, number=0, give_up=False,
        operator="scepstream",
    )  # fmt: skip
    return await append_signed(steps.world.bus, resume_command(enrollment, 0), event, OPERATOR)


def resuming(steps: Steps, step: Step = nothing) -> Resuming:
    confirmer = steps.confirmer(step)
    bus = confirmer.evaluator.bus
    return Resuming.of(bus, steps.validator(step), confirmer, lambda: TRUSTED_OPERATORS)


# Two at once


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_process_that_has_a_message_twice_notifies_intune_once(
    steps: Steps, seed: int
) -> None:
    """It was redelivered after an outage of the bus, or the sweeper had it resumed."""
    outcome = await steps.issued()
    confirmer = steps.confirmer(racing(seed))
    await asyncio.gather(*(settle(steps, lambda: confirmer.handle(outcome)) for _ in range(2)))

    assert steps.check(outcome)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_two_validators_that_have_a_message_agree(steps: Steps, seed: int) -> None:
    outcome = await steps.issued()
    both = [
        steps.confirmer(racing(2 * seed + number), name)
        for number, name in enumerate((FIRST, OTHER))
    ]
    await asyncio.gather(*(settle(steps, lambda c=c: c.handle(outcome)) for c in both))  # type: ignore[misc]

    steps.check(outcome)


@pytest.mark.parametrize("sent", [False, True], ids=["before the call", "after the call"])
async def test_what_a_stopped_validator_does_later_changes_nothing(
    steps: Steps, *, sent: bool
) -> None:
    """SIGSTOP in the call for longer than any call takes, then SIGCONT: the log has decided."""
    outcome = await steps.issued()
    stopped = steps.confirmer()
    gate = steps.hold(stopped, sent=sent)
    paused = asyncio.create_task(stopped.handle(outcome))
    await gate.reached.wait()
    other = steps.confirmer(name=OTHER)
    await settle(steps, lambda: other.handle(outcome))
    failed = steps.confirmation(outcome)
    gate.open.set()
    await paused

    assert isinstance(failed, ConfirmationFailed)
    assert steps.confirmation(outcome) == failed
    assert not steps.check(outcome)


async def test_a_validator_waits_for_the_call_of_another_one(steps: Steps) -> None:
    outcome = await steps.issued()
    stopped, other = steps.confirmer(), steps.confirmer(name=OTHER)
    gate = steps.hold(stopped, sent=True)
    paused = asyncio.create_task(stopped.handle(outcome))
    await gate.reached.wait()
    with pytest.raises(DeferredError) as deferred:
        await other.handle(outcome)
    gate.open.set()
    await paused
    await other.handle(outcome)

    assert deferred.value.wait == BUDGET + 5
    assert steps.check(outcome)


async def test_a_message_that_finds_no_free_place_is_handled_by_another_validator(
    steps: Steps,
) -> None:
    outcome = await steps.issued()
    busy, other = steps.confirmer(), steps.confirmer(name=OTHER)
    busy._places[TENANT] = Places(most=0)
    with pytest.raises(DeferredError):
        await busy.handle(outcome)
    await other.handle(outcome)

    assert steps.check(outcome)


async def test_a_validator_that_leaves_the_profile_out_begins_nothing(steps: Steps) -> None:
    outcome = await steps.issued()
    reloading, other = steps.confirmer(), steps.confirmer(name=OTHER)
    live = reloading.evaluator.live
    live.current = replace(live.current, left_out={PROFILE: "its token is missing"})
    with pytest.raises(NotServedError):
        await reloading.handle(outcome)
    await other.handle(outcome)

    assert steps.check(outcome)


async def test_a_validator_that_does_not_know_the_connection_yet_begins_nothing(
    steps: Steps,
) -> None:
    """A reload has not reached it: another validator already asks over the connection."""
    outcome = await steps.issued()
    older, newer = steps.confirmer(), steps.confirmer(name=OTHER)
    older.connections = {}
    with pytest.raises(NotServedError):
        await older.handle(outcome)
    await newer.handle(outcome)

    assert steps.check(outcome)


async def test_a_certificate_of_a_connection_that_is_gone_is_revoked(steps: Steps) -> None:
    outcome = await steps.issued()
    confirmer = steps.confirmer()
    confirmer.connections = {}
    steps.world.clock.seconds += 600
    await confirmer.handle(outcome)

    assert not steps.check(outcome)


# A certificate that repeats an earlier one


async def repeated(steps: Steps) -> tuple[Stored, Stored]:
    """Two outcomes with one certificate: the first one's, and that of another transaction."""
    first = await steps.issued()
    second = await steps.issued("two", "B")
    assert steps.certificate(first).serial == steps.certificate(second).serial
    return first, second


async def waits(confirmer: Confirmer, stored: Stored) -> bool:
    try:
        await confirmer.handle(stored)
    except DeferredError:
        return True
    return False


async def test_a_certificate_that_is_repeated_is_told_once(steps: Steps) -> None:
    first, second = await repeated(steps)
    confirmer = steps.confirmer()
    waited = await waits(confirmer, second)
    await confirmer.handle(first)
    await confirmer.handle(second)

    assert waited
    assert steps.check(first)
    assert steps.check(second)
    event = steps.confirmation(second)
    assert isinstance(event, CertificateConfirmed)
    assert event.first == parse_subject(first.subject)[0].prefix()


async def test_a_repeated_certificate_fails_with_the_first_one(steps: Steps) -> None:
    first, second = await repeated(steps)
    steps.journal.code = "ChallengeExpired"
    confirmer = steps.confirmer()
    waited = await waits(confirmer, second)
    await confirmer.handle(first)
    steps.journal.code = "Success"
    await confirmer.handle(second)

    assert waited
    assert not steps.check(first)
    event = steps.confirmation(second)
    assert isinstance(event, ConfirmationFailed)
    assert not event.withdrawn
    assert steps.journal.succeeded == []


async def test_whenever_a_process_dies_that_repeats_a_certificate_nobody_is_told_again(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    for at in itertools.count():
        async with stepping(device, ra, ec_key) as steps:
            first, second = await repeated(steps)
            await steps.confirmer().handle(first)
            trouble = Trouble(at, DiedError)
            await outlived(lambda step: steps.confirmer(step).handle(second), trouble)  # noqa: B023
            assert steps.check(first)
            assert steps.check(second)
        if not trouble.happened:
            break
    assert at > 8


@pytest.mark.parametrize("code", ["Success", "ChallengeExpired"])
async def test_another_verifier_gives_out_no_certificate_that_intune_has_not_accepted(
    steps: Steps, code: str
) -> None:
    """A static challenge beside Intune, with the key of a certificate that is withheld."""
    steps.journal.code = code
    steps.world.accept(Access((*intune_access(TENANT).enabled, *ACCESS.enabled)))
    first = await steps.issued()
    request = await steps.request("two", CHALLENGE)
    await steps.validator().handle(request)
    verdict = steps.of(request, Stage.VERDICT)
    with pytest.raises(OutcomeMissingError):
        await steps.issuer().handle(verdict)
    await steps.confirmer().handle(first)
    await steps.issuer().handle(verdict)
    outcome = steps.of(request, Stage.OUTCOME)
    event = authenticate(outcome, TRUSTED_ISSUERS, Stage.OUTCOME)

    assert isinstance(event, CertificateIssued)
    assert not event.withheld
    same = event.serial == steps.certificate(first).serial
    assert same == (code == "Success")


async def test_the_intune_of_another_connection_is_notified_of_a_repeated_certificate(
    steps: Steps,
) -> None:
    """The profile has moved to another tenant since the certificate was made."""
    first = await steps.issued()
    await steps.confirmer().handle(first)
    steps.world.allow(connection=ANOTHER_TENANT)
    steps.world.accept(intune_access(ANOTHER_TENANT))
    second = await steps.issued("two", "B")
    await steps.confirmer().handle(second)
    event = steps.confirmation(second)

    assert steps.certificate(second).serial == steps.certificate(first).serial
    assert isinstance(event, CertificateConfirmed)
    assert (event.connection, event.first) == (ANOTHER_TENANT, "")
    assert len(steps.journal.succeeded) == 2


async def test_intune_is_notified_that_a_request_failed_if_it_had_validated_it(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    """Such as a poisoned one, whose rejection lists no gates."""
    seen = set()
    for at in itertools.count():
        async with stepping(device, ra, ec_key) as steps:
            request = await steps.request()
            with suppress(DiedError):
                await steps.validator(Trouble(at, DiedError)).handle(request)
            if steps.stored(request, Stage.VERDICT):
                break
            replays = messages_of(steps.world.bus, REPLAYS)
            is_marked = any(".validated." in each.subject for each in replays)
            await steps.validator().give_up(request)
            await steps.confirmer().handle(steps.of(request, Stage.VERDICT))
            seen.add((is_marked, tuple(steps.journal.failed)))
    assert seen == {(False, ()), (True, ("one",))}
