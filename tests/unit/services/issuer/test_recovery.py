"""Orders whose answer is lost, by how a CA lets them be found again."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.issuer.connectors.connector import (
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Prepared,
    Recovery,
    UnknownOutcome,
)
from services.issuer.orders import MOST_LOST, pause_after
from services.issuer.orphans import WATCH_SECONDS, OrphanKeeper
from shared.log.envelope import Stored
from shared.log.events.certificates import OrderStep, OrphanSettled, OrphanSuspected
from shared.log.events.enrollment import CertificateIssued
from shared.log.reasons import Reason
from shared.log.subjects import serial_token
from shared.runtime.live import Live
from shared.runtime.worker import DeferredError
from shared.scep.certificate import read_certificate
from tests.support.templates import template
from tests.support.world import approved
from tests.unit.services.issuer.issuers import ENROLLMENT
from tests.unit.services.issuer.outside import LEASE, Outside, make_outside

LIVES = 300.0  # seconds of a token


@pytest.fixture
async def outside(tmp_path: Path) -> Outside:
    return await make_outside(tmp_path)


async def lose(outside: Outside, verdict: Stored, *, kill: bool = False) -> None:
    """Handle a verdict whose order is carried out and whose answer is lost."""
    outside.connector.says.append(asyncio.CancelledError() if kill else UnknownOutcome("lost"))
    with pytest.raises(asyncio.CancelledError if kill else DeferredError):
        await outside.handle(verdict)
    outside.world.clock.seconds += LEASE + 2


@pytest.mark.parametrize("kill", [False, True])
async def test_a_blind_ca_is_asked_again_after_an_orphan_was_recorded(
    outside: Outside, *, kill: bool
) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    await lose(outside, verdict, kill=kill)
    await outside.handle(verdict)
    (orphan,) = outside.orphans()

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert isinstance(orphan, OrphanSuspected)
    assert orphan.placement == 0
    assert [(s.step, s.placement) for s in outside.steps()] == [(OrderStep.PLACED, 1)]
    assert "find" not in outside.connector.calls


async def test_a_blind_ca_that_never_answers_is_asked_three_times(outside: Outside) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    for _ in range(MOST_LOST):
        await lose(outside, verdict)
        outside.world.clock.seconds += 3600  # past the breaker
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.CA_SILENT
    assert outside.connector.calls == ["issue"] * MOST_LOST
    assert [o.placement for o in outside.orphans()] == list(range(MOST_LOST))  # type: ignore[attr-defined]


async def test_what_certainly_was_not_placed_leaves_no_orphan(outside: Outside) -> None:
    """And nobody waits for the end of a lease."""
    outside.use(recovery=Recovery.BLIND)
    outside.connector.says.append(CaUnavailableError("away", retry_after=3))
    verdict = await outside.world.verdict()
    with pytest.raises(DeferredError) as deferred:
        await outside.handle(verdict)
    assert deferred.value.wait is not None
    assert 2 < deferred.value.wait < 4
    outside.world.clock.seconds += 4
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.orphans() == []
    assert [s.step for s in outside.steps()] == [OrderStep.NOT_PLACED, OrderStep.PLACED]


async def test_a_token_that_lives_is_used_again_and_leaves_no_orphan(outside: Outside) -> None:
    outside.use(recovery=Recovery.SHORT_TOKEN, token_lifetime=LIVES)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.orphans() == []


async def test_a_repeated_token_that_is_not_placed_does_not_hide_the_first(
    outside: Outside,
) -> None:
    outside.use(recovery=Recovery.SHORT_TOKEN, token_lifetime=LIVES)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.connector.says.append(CaUnavailableError("busy"))
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.VERDICT_EXPIRED
    assert len(outside.orphans()) == 1


async def test_what_a_deferred_ca_made_without_a_handle_is_nothing(outside: Outside) -> None:
    outside.use(recovery=Recovery.DEFERRED)
    object.__setattr__(outside.connector, "makes", False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    object.__setattr__(outside.connector, "makes", True)
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.orphans() == []


async def test_after_the_end_of_a_token_the_ca_is_blind(outside: Outside) -> None:
    """The lifetime counts from the first placement with the token, not from the last."""
    outside.use(recovery=Recovery.SHORT_TOKEN, token_lifetime=LIVES)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    await lose(outside, verdict)
    assert outside.orphans() == []
    outside.world.clock.seconds += LIVES - 2 * LEASE
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert len(outside.orphans()) == 1


async def test_an_order_that_a_search_finds_is_not_placed_again(outside: Outside) -> None:
    outside.use(recovery=Recovery.SEARCHABLE)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.connector.calls.append("-")
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.connector.calls == ["issue", "-", "find"]
    assert outside.orphans() == []


async def test_an_order_that_a_search_does_not_find_may_still_be_carried_out(
    outside: Outside,
) -> None:
    outside.use(recovery=Recovery.SEARCHABLE)
    object.__setattr__(outside.connector, "makes", False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    object.__setattr__(outside.connector, "makes", True)
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert len(outside.orphans()) == 1


async def test_a_handle_is_recorded_and_asked_for_by_another_issuer(outside: Outside) -> None:
    outside.use(recovery=Recovery.BLIND)
    outside.connector.says.append(Pending("order-7"))
    verdict = await outside.world.verdict()
    with pytest.raises(DeferredError) as deferred:
        await outside.handle(verdict)
    assert deferred.value.wait is not None
    assert 3 < deferred.value.wait < 7
    (step,) = outside.steps()
    assert (step.step, step.handle, step.lease_until) == (OrderStep.PENDING, "order-7", 0)
    outside.connector.calls.append("-")
    await outside.another().handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert outside.connector.calls[-1] == "find"
    assert outside.orphans() == []


async def test_an_order_that_stays_pending_is_noted_once_and_fails_in_the_end(
    outside: Outside,
) -> None:
    outside.connector.says.append(Pending("order-7"))
    outside.use(pending_limit=86400.0)
    verdict = await outside.world.verdict()
    for _ in range(3):
        with pytest.raises(DeferredError):
            await outside.handle(verdict)
        outside.world.clock.seconds += 3600
        outside.connector.finds.append(Pending("order-7"))
    assert len(outside.steps()) == 1
    outside.world.clock.seconds += 86400
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.CA_SILENT
    assert "has not decided within 1 days" in outside.failure().detail
    assert len(outside.orphans()) == 1


async def test_two_issuers_do_not_place_an_order_again_at_once(outside: Outside) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.connector.says.append(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await outside.handle(verdict)
    with pytest.raises(DeferredError):
        await outside.another().handle(verdict)

    assert outside.connector.calls == ["issue", "issue"]


async def test_an_approval_that_ends_with_an_order_nobody_can_find_leaves_an_orphan(
    outside: Outside,
) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.VERDICT_EXPIRED
    assert len(outside.orphans()) == 1


async def test_a_ca_that_fails_is_left_alone_for_a_while(outside: Outside) -> None:
    verdict = await outside.world.verdict()
    for _ in range(3):
        outside.connector.says.append(CaUnavailableError("away"))
        with pytest.raises(DeferredError):
            await outside.handle(verdict)
        outside.world.clock.seconds += 1.5
    calls = list(outside.connector.calls)
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    assert outside.connector.calls == calls
    outside.world.clock.seconds += 60
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)


def test_pauses_between_questions_grow_to_five_minutes() -> None:
    waited, pauses = 0.0, []
    for _ in range(8):
        pauses.append(pause_after(waited))
        waited += pauses[-1]

    assert 4 <= pauses[0] <= 6
    assert all(pause <= 360 for pause in pauses)
    assert pauses[-1] >= 240


@pytest.mark.parametrize("recovery", [Recovery.SHORT_TOKEN, Recovery.NAMED])
async def test_an_approval_that_ends_before_a_slow_ca_has_decided_leaves_an_orphan(
    outside: Outside, recovery: Recovery
) -> None:
    """A token that lives is not repeated any more, and a name may be taken later."""
    outside.use(recovery=recovery, token_lifetime=1e9)
    object.__setattr__(outside.connector, "makes", False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.VERDICT_EXPIRED
    assert len(outside.orphans()) == 1


async def test_a_repeated_name_that_is_not_placed_does_not_hide_the_first(outside: Outside) -> None:
    object.__setattr__(outside.connector, "makes", False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.connector.says.append(CaUnavailableError("busy"))
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    object.__setattr__(outside.connector, "makes", True)
    await outside.connector.issue(
        Order(ENROLLMENT.prefix(), template(outside.world.ca.certificate), verdict.sha256()),
        Prepared(),
    )
    outside.world.clock.seconds = approved(template(outside.world.ca.certificate)).valid_until + 1
    await outside.handle(verdict)

    assert isinstance(outside.world.outcome(), CertificateIssued)


async def test_an_order_that_was_deferred_often_and_carried_out_is_no_dead_letter(
    outside: Outside,
) -> None:
    outside.connector.says.append(Pending("order-7"))
    verdict = await outside.world.verdict()
    with pytest.raises(DeferredError):
        await outside.handle(verdict)

    assert await outside.world.consumer.give_up(verdict) is True
    assert isinstance(outside.world.outcome(), CertificateIssued)
    assert await outside.world.consumer.give_up(verdict) is True


# Orphans


def second(outside: Outside, verdict: Stored) -> bytes:
    """Another certificate that the CA made for the order."""
    approval = approved(template(outside.world.ca.certificate))
    order = Order("enroll.0.a.b.c.9", approval.template, verdict.sha256())
    return outside.connector._sign(order)


def keeper(outside: Outside) -> OrphanKeeper:
    return OrphanKeeper(
        outside.world.bus, Live(outside.world.consumer.live.current), outside.world.clock
    )


async def suspected(outside: Outside) -> tuple[Stored, bytes]:
    """An issued order with a suspicion, and the certificate that turned up too late."""
    outside.use(recovery=Recovery.SEARCHABLE)
    object.__setattr__(outside.connector, "makes", False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    object.__setattr__(outside.connector, "makes", True)
    await outside.handle(verdict)
    return verdict, second(outside, verdict)


def kept(outside: Outside) -> bytes:
    issued = outside.world.outcome()
    assert isinstance(issued, CertificateIssued)
    return issued.certificate


async def test_an_orphan_that_turns_up_is_revoked_and_settled(outside: Outside) -> None:
    _, orphan = await suspected(outside)
    outside.connector.finds.append(Issued(kept(outside), (orphan,)))
    await keeper(outside).look()
    settled = outside.orphans()[-1]
    serial = serial_token(read_certificate(orphan).serial)

    assert isinstance(settled, OrphanSettled)
    assert settled.serials == (serial,)
    assert outside.revoked() == [serial]


async def test_an_orphan_that_does_not_turn_up_is_settled_after_a_day(outside: Outside) -> None:
    await suspected(outside)
    found = keeper(outside)
    await found.look()
    assert len(outside.orphans()) == 1
    outside.world.clock.seconds += WATCH_SECONDS + 700
    await found.look()
    settled = outside.orphans()[-1]

    assert isinstance(settled, OrphanSettled)
    assert settled.serials == ()
    assert outside.revoked() == []


async def test_the_certificate_of_an_open_order_is_no_orphan(outside: Outside) -> None:
    outside.use(recovery=Recovery.SEARCHABLE)
    object.__setattr__(outside.connector, "makes", False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    await lose(outside, verdict)
    assert len(outside.orphans()) == 1
    orphan = second(outside, verdict)
    outside.connector.finds.append(Issued(orphan))
    await keeper(outside).look()

    assert outside.revoked() == []


async def test_a_keeper_reads_on_where_it_was(outside: Outside) -> None:
    _, orphan = await suspected(outside)
    first, other = keeper(outside), keeper(outside)
    await other.look()
    outside.connector.finds.append(Issued(kept(outside), (orphan,)))
    await first.look()
    outside.world.clock.seconds += 700
    before: Any = list(outside.connector.calls)
    await other.look()

    assert outside.connector.calls == before
    assert len(outside.orphans()) == 2
