"""Revocations that Intune asks for: recorded first, carried out once, reported when done."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.microsoft.calls import Microsoft
from services.validator.microsoft.model import (
    MicrosoftUnavailableError,
    Problem,
    RevocationAsked,
    RevocationError,
    RevocationResult,
)
from services.validator.revocation_pull import RevocationPull
from shared.limits import SERIES_LENGTH, WITHDRAWALS
from shared.log.envelope import Message, Stored, sign
from shared.log.events.certificates import CertificateRecorded
from shared.log.events.commands import CommandAnswered, RevocationReason, WithdrawalOrdered
from shared.log.events.enrollment import CertificateIssued
from shared.log.stages import Stage
from shared.log.streams import OPS, REPLAYS
from shared.log.subjects import (
    EnrollmentId,
    certificate_issued,
    connection_lease,
    revocation_answer,
    revocation_report,
    revocation_request,
    withdrawal_command,
)
from tests.support.messages import Identity
from tests.support.validators import validating
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    PROFILE,
    REQUEST_SHA256,
    STRANGER,
    VALIDATOR,
    Clock,
    append_signed,
    messages_of,
)

FIRST = EnrollmentId("0", PROFILE, "t" * 8, "c" * 8, 0)
SERIAL = "0abc"


@dataclass
class Fake:
    """A tenant's Intune: what it asks for until it is reported, and what it was told."""

    asked: list[RevocationAsked] = field(default_factory=list)
    told: list[RevocationResult] = field(default_factory=list)
    fails: list[MicrosoftUnavailableError] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    downloads: int = 0
    uploads: int = 0

    async def download_revocations(self, maximum: int) -> tuple[RevocationAsked, ...]:
        self.downloads += 1
        return tuple(self.asked[:maximum])

    async def upload_results(self, results: Sequence[RevocationResult]) -> None:
        self.uploads += 1
        if self.fails:
            raise self.fails.pop()
        contexts = {each.context for each in results}
        if contexts & self.refuses:
            raise MicrosoftUnavailableError(Problem.PROTOCOL, "Intune did not confirm the results")
        self.told += results
        self.asked = [each for each in self.asked if each.context not in contexts]


@dataclass
class World:
    """One validator's pull on the bus in memory, and an issuer that answers."""

    bus: Any
    clock: Clock
    fake: Fake
    pull: RevocationPull
    another: Callable[[str], RevocationPull]

    async def issue(self, serial: str = SERIAL, connection: str = "contoso") -> None:
        place = replace(FIRST, transaction=f"{serial:>08}")
        record = CertificateRecorded(
            request_sha256=REQUEST_SHA256,
            enrollment=place.prefix(),
            spki_sha256="11" * 32,
            subject="CN=device",
            not_before=NOW,
            not_after=NOW + 1,
            serial=serial,
        )
        await append_signed(self.bus, certificate_issued(ISSUER, serial), record, ISSUING)
        issued = CertificateIssued(
            request_sha256=REQUEST_SHA256,
            issuer=ISSUER,
            serial=serial,
            certificate=b"\x30\x00",
            not_after=NOW + 1,
            confirmed_by=connection,
        )
        await append_signed(self.bus, place.subject(Stage.OUTCOME), issued, ISSUING)

    def orders(self) -> list[Stored]:
        return [s for s in messages_of(self.bus, OPS) if ".ordered" in s.subject]

    async def answer(self, *, done: bool = True) -> None:
        """Answer each command that has no answer, as an issuer."""
        answered = {s.subject for s in messages_of(self.bus, OPS)}
        for order in self.orders():
            place = revocation_answer(order.subject)
            if place not in answered:
                event = CommandAnswered(request_sha256=order.sha256(), done=done, detail="revoked")
                await append_signed(self.bus, place, event, ISSUING)


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key, connection="contoso") as found:
        fake = Fake()

        def another(name: str) -> RevocationPull:
            microsoft: Microsoft = fake  # type: ignore[assignment]
            return RevocationPull(found.evaluator, "contoso", microsoft, name, found.clock)

        yield World(found.bus, found.clock, fake, another("validator-0"), another)


async def test_a_certificate_is_reported_once_the_issuer_says_that_it_is_revoked(
    world: World,
) -> None:
    await world.issue()
    world.fake.asked = [RevocationAsked("request 7", "0x0A:BC")]

    assert await world.pull.pull()
    assert world.fake.told == []
    (order,) = world.orders()
    assert order.subject == f"ops.withdraw.{ISSUER}.{SERIAL}.0.ordered"
    await world.answer()
    assert not await world.pull.pull()
    assert world.fake.told == [RevocationResult("request 7", True)]
    assert len(world.orders()) == 1


@pytest.mark.parametrize("connection", ["", "fabrikam"])
async def test_only_its_own_certificates_are_withdrawn(world: World, connection: str) -> None:
    await world.issue(connection=connection)
    world.fake.asked = [RevocationAsked("a", SERIAL), RevocationAsked("b", "ff")]
    world.fake.asked.append(RevocationAsked("c", "not hex"))
    await world.pull.pull()

    assert [each.error_code for each in world.fake.told] == [RevocationError.NOT_FOUND] * 3
    assert world.orders() == []


async def test_a_refusal_by_the_issuer_is_reported_in_the_end(world: World) -> None:
    await world.issue()
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    for _ in range(20):
        if not await world.pull.pull():
            break
        await world.answer(done=False)

    (told,) = world.fake.told
    assert (told.succeeded, told.error_code) == (False, RevocationError.NON_RETRYABLE)


async def test_what_could_not_be_uploaded_is_uploaded_later(world: World) -> None:
    await world.issue()
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    await world.pull.pull()
    await world.answer()
    world.fake.fails = [MicrosoftUnavailableError(Problem.OUTAGE, "away")]
    with pytest.raises(MicrosoftUnavailableError):
        await world.pull.pull()
    assert "away" in world.pull.status.error

    await world.pull.pull()
    assert [each.context for each in world.fake.told] == ["a"]
    assert world.pull.status.error == ""


async def test_what_was_downloaded_is_not_forgotten_if_intune_does_not_repeat_it(
    world: World,
) -> None:
    await world.issue()
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    await world.pull.pull()
    world.fake.asked = []
    await world.answer()
    world.clock.seconds += 600

    await world.another("validator-1").pull()
    assert world.fake.told == [RevocationResult("a", True)]


async def test_a_request_that_is_repeated_is_reported_again_and_not_carried_out_again(
    world: World,
) -> None:
    await world.issue()
    asked = [RevocationAsked("a", SERIAL)]
    world.fake.asked = list(asked)
    await world.pull.pull()
    await world.answer()
    await world.pull.pull()
    world.fake.asked = list(asked)
    await world.pull.pull()

    assert world.fake.told == [RevocationResult("a", True)] * 2
    assert len(world.orders()) == 1


async def test_one_replica_works_at_a_time(world: World) -> None:
    await world.pull.pull()
    other = world.another("validator-1")
    before = world.fake.downloads

    assert not await other.pull()
    assert world.fake.downloads == before
    assert other.held_for == 120
    world.clock.seconds += 122
    await other.pull()
    assert world.fake.downloads > before
    assert other.held_for == 0


async def test_a_forged_request_is_not_carried_out(world: World) -> None:
    await world.issue()
    subject = revocation_request("contoso", "a")
    event = WithdrawalOrdered(
        issuer=ISSUER,
        serial=SERIAL,
        attempt=0,
        reason=RevocationReason.UNSPECIFIED,
        operator="contoso",
        cause="requested",
    )
    await world.bus.append(subject, sign(event, subject, STRANGER))
    await append_signed(world.bus, revocation_request("contoso", "b"), event, VALIDATOR)
    await world.pull.pull()

    assert world.orders() == []


async def test_intune_is_not_asked_again_while_an_issuer_has_not_answered(world: World) -> None:
    await world.issue()
    world.pull.rest = 480.0
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    await world.pull.pull()
    before = world.fake.downloads
    world.clock.seconds += 2
    assert await world.pull.pull()
    assert world.fake.downloads == before
    await world.answer()
    assert not await world.pull.pull()
    assert world.fake.told == [RevocationResult("a", True)]

    world.clock.seconds += 480
    await world.pull.pull()
    assert world.fake.downloads > before


async def test_a_lease_is_extended_only_when_half_of_it_is_over(world: World) -> None:
    for _ in range(3):
        await world.pull.pull()
    assert len(messages_of(world.bus, REPLAYS)) == 1
    world.clock.seconds += 61
    await world.pull.pull()
    assert len(messages_of(world.bus, REPLAYS)) == 2


async def test_a_result_that_intune_refuses_does_not_hold_up_the_others(world: World) -> None:
    world.pull.rest = 480.0
    asked = [RevocationAsked(each, "ff") for each in ("a", "b", "c")]
    world.fake.asked, world.fake.refuses = list(asked), {"b"}

    assert not await world.pull.pull()
    assert [each.context for each in world.fake.told] == ["a", "c"]
    assert "did not confirm" in world.pull.status.error
    assert world.pull.status.open == 1
    before = world.fake.uploads
    await world.pull.pull()
    assert world.fake.uploads == before  # it is sent again with the next download

    world.fake.asked.append(RevocationAsked("d", "ff"))
    world.fake.refuses.clear()
    world.clock.seconds += 480
    await world.pull.pull()
    assert [each.context for each in world.fake.told] == ["a", "c", "b", "d"]
    assert world.pull.status.error == ""


async def test_a_service_that_refuses_everything_is_not_asked_about_each_result(
    world: World,
) -> None:
    names = [f"{number}" for number in range(40)]
    world.fake.asked = [RevocationAsked(name, "ff") for name in names]
    world.fake.refuses = set(names)
    with pytest.raises(MicrosoftUnavailableError):
        await world.pull.pull()

    assert world.fake.uploads < 10


async def test_commands_that_are_all_forged_end_in_an_error(world: World) -> None:
    await world.issue()
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    for attempt in range(WITHDRAWALS):
        subject = withdrawal_command(ISSUER, SERIAL, attempt)
        event = WithdrawalOrdered(
            issuer=ISSUER,
            serial=SERIAL,
            attempt=attempt,
            reason=RevocationReason.CESSATION_OF_OPERATION,
            operator="contoso",
            cause="requested",
        )
        await world.bus.append(subject, sign(event, subject, STRANGER))

    assert not await world.pull.pull()
    (told,) = world.fake.told
    assert (told.succeeded, told.error_code) == (False, RevocationError.NON_RETRYABLE)


async def test_planted_leases_stop_no_pull_and_show_as_an_error(world: World) -> None:
    await world.issue()
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    for number in range(SERIES_LENGTH + 1):
        await world.bus.append(connection_lease("contoso", number), Message(b"planted", {}))
    await world.pull.pull()
    await world.answer()
    await world.pull.pull()

    assert world.fake.told == [RevocationResult("a", True)]
    assert "forged" in world.pull.status.error


async def test_a_certificate_of_an_issuer_that_the_profiles_have_left_is_withdrawn(
    world: World,
) -> None:
    await world.issue()
    live = world.pull.evaluator.live
    before = live.current.policies[PROFILE]
    moved = replace(before, issuer="another")
    policies = {PROFILE: moved, "other": replace(before, connection="")}
    live.current = replace(live.current, policies=policies)
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    await world.pull.pull()

    assert len(world.orders()) == 1


async def test_a_planted_report_does_not_suppress_a_revocation(world: World) -> None:
    await world.issue()
    world.fake.asked = [RevocationAsked("a", SERIAL)]
    subject = revocation_report("contoso", "a")
    await world.bus.append(subject, Message(b"planted", {}))
    await world.pull.pull()
    await world.answer()
    await world.pull.pull()
    await world.pull.pull()

    assert world.fake.told == [RevocationResult("a", True)]
    assert len(world.orders()) == 1
