"""Which certificates of an order are orphans, and that no device's is ever revoked as one."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.issuer.connectors.connector import (
    CaUnavailableError,
    Issued,
    Order,
    Pending,
    Recovery,
    Result,
    UnknownOutcome,
)
from services.issuer.orphans import WATCH_SECONDS, OrphanConsumer, OrphanKeeper
from shared.log.envelope import Message, Stored, authenticate_as
from shared.log.events.certificates import CertificateRecorded, OrphanSettled
from shared.log.events.commands import CommandAnswered, OrphanReported
from shared.log.events.enrollment import CertificateIssued
from shared.log.reasons import Reason
from shared.log.stages import Stage
from shared.log.subjects import certificate_issued, orphan_command, revocation_answer, serial_token
from shared.runtime.live import Live
from shared.runtime.worker import DeferredError
from shared.scep.certificate import read_certificate
from shared.x509.key_ids import spki_sha256
from tests.support.templates import template
from tests.support.world import (
    ISSUER,
    ISSUING,
    OPERATOR,
    REQUEST_SHA256,
    TRUSTED_ISSUERS,
    append,
    approved,
    signed_event,
)
from tests.unit.services.issuer.issuers import ENROLLMENT
from tests.unit.services.issuer.outside import LEASE, Outside, make_outside


@pytest.fixture
async def outside(tmp_path: Path) -> Outside:
    return await make_outside(tmp_path)


def approval(outside: Outside) -> Any:
    return approved(template(outside.world.ca.certificate))


async def lose(outside: Outside, verdict: Stored) -> None:
    """Handle a verdict whose order is placed and whose answer is lost."""
    outside.connector.says.append(UnknownOutcome("lost"))
    with pytest.raises(DeferredError):
        await outside.handle(verdict)
    outside.world.clock.seconds += LEASE + 2


def makes(outside: Outside, *, does: bool) -> None:
    object.__setattr__(outside.connector, "makes", does)


def serial_of(der: bytes) -> str:
    return serial_token(read_certificate(der).serial)


def another(outside: Outside, verdict: Stored) -> bytes:
    """One more certificate that the CA made for the order."""
    asked = Order("enroll.0.a.b.c.9", approval(outside).template, verdict.sha256())
    return outside.connector._sign(asked)


def keeper(outside: Outside) -> OrphanKeeper:
    live = Live(outside.world.consumer.live.current)
    return OrphanKeeper(outside.world.bus, live, outside.world.clock)


def issued(outside: Outside) -> CertificateIssued:
    found = outside.world.outcome()
    assert isinstance(found, CertificateIssued)
    return found


async def kill_before_the_outcome(outside: Outside, verdict: Stored) -> None:
    """The CA issues and the certificate is recorded; then the issuer is killed."""
    real = outside.world.consumer._record

    async def killed(*_: Any) -> None:
        raise asyncio.CancelledError

    object.__setattr__(outside.world.consumer, "_record", killed)
    with pytest.raises(asyncio.CancelledError):
        await outside.handle(verdict)
    object.__setattr__(outside.world.consumer, "_record", real)
    outside.world.clock.seconds += LEASE + 2


def register(outside: Outside, *, empty: bool = False) -> list[bytes]:
    """The certificates that the CA has in its list; `empty` makes the list lag behind."""
    with outside.connector.register.open() as connection:
        found = [row[0] for row in connection.execute("SELECT certificate FROM certificates")]
        if empty:
            connection.execute("DELETE FROM certificates")
    return found


async def suspected(outside: Outside) -> Stored:
    """An issued order whose first placement was lost."""
    outside.use(recovery=Recovery.SEARCHABLE)
    makes(outside, does=False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    makes(outside, does=True)
    await outside.handle(verdict)
    return verdict


async def record_for_another(outside: Outside, der: bytes) -> None:
    """Another enrollment has this certificate on record."""
    asked, serial = approval(outside).template, serial_of(der)
    event = CertificateRecorded(
        request_sha256=REQUEST_SHA256, enrollment="enroll.0.corp.other.csr.0",
        spki_sha256=spki_sha256(asked.spki), subject="", not_before=0, not_after=1,
        serial=serial, ca_spki_sha256=asked.ca_spki_sha256,
    )  # fmt: skip
    place = certificate_issued(asked.issuer, serial)
    await append(outside.world.bus, place, signed_event(event, place, ISSUING))


# Verdicts that are delivered again


async def test_a_verdict_with_an_outcome_orders_nothing(outside: Outside) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    await outside.handle(verdict)
    outside.world.clock.seconds += LEASE + 2
    await outside.handle(verdict)
    await outside.world.consumer.give_up(verdict)

    assert outside.connector.calls == ["issue"]
    assert len(outside.world.outcomes()) == 1


async def test_a_verdict_with_an_outcome_that_is_refused_by_now_revokes_nothing(
    outside: Outside,
) -> None:
    verdict = await outside.world.verdict()
    await outside.handle(verdict)
    outside.world.clock.seconds += LEASE + 2
    ca = outside.connector.cas.current
    tight = replace(ca, ceilings=replace(ca.ceilings, max_ttl=1))
    outside.use(cas=replace(outside.connector.cas, current=tight))
    await outside.handle(verdict)

    assert outside.revoked() == []


async def test_a_forged_outcome_does_not_hide_an_order_that_is_open(outside: Outside) -> None:
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    place = ENROLLMENT.subject(Stage.OUTCOME)
    await outside.world.bus.append(place, Message(b"planted", {}))
    await outside.handle(verdict)

    assert len(outside.orphans()) == 1


# Failures while an order is open


async def test_a_csr_that_is_missing_does_not_hide_an_order_that_is_open(outside: Outside) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.use(needs_csr=True)
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.BEYOND_CEILING
    assert len(outside.orphans()) == 1


async def test_an_issuer_that_was_removed_does_not_either(outside: Outside) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    outside.world.consumer.live.current = replace(outside.world.settings, issuers={})
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.BEYOND_CEILING
    assert len(outside.orphans()) == 1


async def test_outages_do_not_count_as_lost_answers(outside: Outside) -> None:
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    for _ in range(4):
        outside.connector.says.append(CaUnavailableError("away"))
        with pytest.raises(DeferredError):
            await outside.handle(verdict)
        outside.world.clock.seconds += 70
    await lose(outside, verdict)
    outside.world.clock.seconds += 70
    await outside.handle(verdict)

    assert issued(outside)
    assert len(outside.orphans()) == 1


async def test_a_search_that_always_fails_ends_some_day(outside: Outside) -> None:
    outside.use(recovery=Recovery.SEARCHABLE)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    for _ in range(3):
        outside.connector.finds.append(UnknownOutcome("the list is too long"))
        if not outside.world.outcomes():
            with pytest.raises(DeferredError):
                await outside.handle(verdict)
        outside.world.clock.seconds += 30_000
    outside.connector.finds[:] = [UnknownOutcome("the list is too long")]
    await outside.handle(verdict)

    assert outside.failure().reason is Reason.VERDICT_EXPIRED
    assert len(outside.orphans()) == 1


def test_the_mark_of_an_order_is_not_in_the_past(outside: Outside) -> None:
    now = 1_000_000_000
    short = msgspec.structs.replace(
        approval(outside).template, not_before=now - 3600, not_after=now + 300
    )
    ends = [Order(f"enroll.0.a.b.c.{n}", short, "00").tagged_not_after for n in range(300)]

    assert min(ends) > now


# What the keeper revokes


async def test_a_certificate_of_another_enrollment_is_not_revoked(outside: Outside) -> None:
    verdict = await suspected(outside)
    theirs = another(outside, verdict)
    await record_for_another(outside, theirs)
    outside.connector.finds.append(Issued(issued(outside).certificate, (theirs,)))
    await keeper(outside).look()

    assert outside.revoked() == []


async def test_nor_is_it_disowned_by_an_enrollment_that_fails(outside: Outside) -> None:
    outside.use(recovery=Recovery.SEARCHABLE)
    makes(outside, does=False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    theirs = another(outside, verdict)
    await record_for_another(outside, theirs)
    outside.world.clock.seconds = approval(outside).valid_until + 1
    outside.connector.finds.append(Issued(theirs))
    await outside.handle(verdict)

    assert outside.failure()
    assert outside.revoked() == []


async def test_a_certificate_on_record_that_no_outcome_has_is_an_orphan(outside: Outside) -> None:
    outside.use(recovery=Recovery.SEARCHABLE)
    verdict = await outside.world.verdict()
    await kill_before_the_outcome(outside, verdict)
    (first,) = register(outside, empty=True)
    await outside.handle(verdict)
    second = issued(outside).certificate
    assert second != first
    outside.connector.finds.append(Issued(first, (second,)))
    await keeper(outside).look()

    assert outside.revoked() == [serial_of(first)]


async def test_nothing_is_revoked_before_the_enrollment_has_ended(outside: Outside) -> None:
    """The next issuer may find either certificate, and the device gets it."""
    outside.use(recovery=Recovery.SEARCHABLE)
    makes(outside, does=False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    makes(outside, does=True)
    await kill_before_the_outcome(outside, verdict)
    (recorded,) = register(outside)
    late = another(outside, verdict)
    outside.connector.finds.append(Issued(late, (recorded,)))
    await keeper(outside).look()
    outside.connector.finds[:] = [Issued(late, (recorded,))]
    await outside.handle(verdict)

    assert issued(outside).serial not in outside.revoked()


@pytest.mark.parametrize("said", [UnknownOutcome("failed"), Pending("q")])
async def test_a_search_that_did_not_work_settles_nothing(outside: Outside, said: Result) -> None:
    await suspected(outside)
    outside.world.clock.seconds += WATCH_SECONDS + 700
    outside.connector.finds.append(said)
    await keeper(outside).look()

    assert not isinstance(outside.orphans()[-1], OrphanSettled)


# What operators report


async def report(outside: Outside, key: str, *ders: bytes, placement: int = 0) -> CommandAnswered:
    """The issuer's answer to an operator's report."""
    event = OrphanReported(
        issuer=ISSUER, key=key, attempt=0, placement=placement, certificates=ders, operator="o"
    )
    place = orphan_command(ISSUER, key, 0)
    stored = await append(outside.world.bus, place, signed_event(event, place, OPERATOR))
    live = Live(outside.world.consumer.live.current)
    await OrphanConsumer(outside.world.bus, live).handle(stored)
    answer = await outside.world.bus.get_last("OPS", revocation_answer(place))
    assert answer is not None
    return authenticate_as(CommandAnswered, answer, TRUSTED_ISSUERS)


async def silent(outside: Outside) -> Stored:
    """An enrollment whose CA answered none of three orders."""
    outside.use(recovery=Recovery.BLIND)
    verdict = await outside.world.verdict()
    for _ in range(3):
        await lose(outside, verdict)
        outside.world.clock.seconds += 3600
    await outside.handle(verdict)
    assert outside.failure().reason is Reason.CA_SILENT
    return verdict


async def test_every_certificate_of_a_silent_ca_can_be_reported(outside: Outside) -> None:
    verdict = await silent(outside)
    ders = another(outside, verdict), another(outside, verdict)
    answer = await report(outside, outside.orphans()[0].key, *ders, placement=2)
    settled = outside.orphans()[-1]

    assert answer.done
    assert set(outside.revoked()) == set(map(serial_of, ders))
    assert isinstance(settled, OrphanSettled)
    assert settled.serials == tuple(map(serial_of, ders))
    assert settled.operator == "o"


async def test_a_report_from_before_another_lost_answer_settles_nothing(outside: Outside) -> None:
    await silent(outside)
    answer = await report(outside, outside.orphans()[0].key, placement=1)

    assert not answer.done
    assert "look at the CA again" in answer.detail


async def test_the_certificate_of_an_open_order_is_not_revoked_on_report(outside: Outside) -> None:
    outside.use(recovery=Recovery.SEARCHABLE)
    makes(outside, does=False)
    verdict = await outside.world.verdict()
    await lose(outside, verdict)
    await lose(outside, verdict)
    der = another(outside, verdict)
    answer = await report(outside, outside.orphans()[0].key, der)

    assert not answer.done
    assert "still open" in answer.detail
    assert outside.revoked() == []


async def test_the_devices_own_certificate_is_no_orphan(outside: Outside) -> None:
    await suspected(outside)
    answer = await report(outside, outside.orphans()[0].key, issued(outside).certificate)

    assert not answer.done
    assert "is a device's" in answer.detail
    assert outside.revoked() == []


async def test_a_certificate_for_another_key_is_no_orphan(outside: Outside) -> None:
    await suspected(outside)
    ca = outside.world.ca
    answer = await report(outside, outside.orphans()[0].key, ca.chain[0])

    assert not answer.done
    assert "another key" in answer.detail


async def test_that_there_is_none_can_be_reported(outside: Outside) -> None:
    await suspected(outside)
    answer = await report(outside, outside.orphans()[0].key)

    assert (answer.done, answer.detail) == (True, "an operator found none at the CA")
    assert isinstance(outside.orphans()[-1], OrphanSettled)
