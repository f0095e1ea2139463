"""Manual approval: a hold, an operator's decision, and the verdict that follows."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.validator.facts import names_sha256
from shared.log.envelope import SUBJECT, EventSigner, Message, Stored, authenticate
from shared.log.events.base import EventPayload
from shared.log.events.certificates import KeyCompromised
from shared.log.events.enrollment import (
    EnrollmentApproved,
    EnrollmentHeld,
    EnrollmentRejected,
    HoldDecided,
)
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.log.subjects import key_compromised, key_issued
from shared.x509.csr import read_csr
from shared.x509.key_ids import spki_sha256
from tests.support.messages import PRINTABLE, Identity, challenge, csr, device_csr, spki
from tests.support.validators import World, validating
from tests.support.world import (
    ISSUER,
    ISSUING,
    NOW,
    OPERATOR,
    REQUEST_SHA256,
    SERIAL,
    STRANGER,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append,
    append_signed,
    counted,
    facts,
    messages_of,
    signed_event,
    turn,
    until,
)
from tests.unit.services.validator.records import DAY, record


@dataclass
class Desk:
    """A validator with a manual profile, and the operator."""

    world: World

    @property
    def hold_subject(self) -> str:
        return self.world.enrollment.subject(Stage.HOLD)

    @property
    def decision_subject(self) -> str:
        return self.world.enrollment.subject(Stage.DECISION)

    def holds(self) -> list[Stored]:
        return messages_of(self.world.bus, "ENROLL_0", ".hold")

    async def handle(self, stored: Stored) -> None:
        await self.world.consumer.handle(stored)

    async def held(self, **options: Any) -> Stored:
        """A request that waits for the operator."""
        request = await self.world.request(**options)
        await self.handle(request)
        assert self.holds()
        return request

    async def decision(
        self,
        request: Stored,
        approved: bool = True,  # noqa: FBT001, FBT002 - the word itself
        *,
        by: EventSigner = OPERATOR,
        **changes: Any,
    ) -> Stored:
        """The operator's word on the log; `changes` alter the event."""
        values = {"request_sha256": request.sha256(), "approved": approved, "operator": "op"}
        event = HoldDecided(**(values | changes))
        return await append_signed(self.world.bus, self.decision_subject, event, by)

    async def certified(self, event: EventPayload) -> None:
        """What an issuer writes about the device's key."""
        key = spki(self.world.device.key.public_key())
        subject = key_issued(spki_sha256(key), ISSUER, SERIAL)
        if isinstance(event, KeyCompromised):
            subject = key_compromised(spki_sha256(key), 0)
        await append(self.world.bus, subject, signed_event(event, subject, ISSUING))


@pytest.fixture
async def deps(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Desk]:
    async with validating(device, ra, ec_key, manual=True) as world:
        yield Desk(world)


async def test_a_good_request_is_held_and_gets_no_verdict(deps: Desk) -> None:
    before = counted("verdicts", profile="demo", reason="held")
    request = await deps.held()

    (stored,) = deps.holds()
    event = authenticate(stored, TRUSTED_VALIDATORS, Stage.HOLD, request.sha256())
    assert isinstance(event, EnrollmentHeld)
    assert event.facts.subject == "CN=device, O=Lab"
    assert all(gate.passed for gate in event.gates)
    assert stored.subject == deps.hold_subject
    assert deps.world.verdicts() == []
    assert counted("verdicts", profile="demo", reason="held") == before + 1


async def test_a_hold_is_hinted_so_that_the_device_is_told_at_once(deps: Desk) -> None:
    await deps.held()
    await until(lambda: deps.world.hints)

    (stored,) = deps.holds()
    headers = {**stored.headers, SUBJECT: stored.subject}
    assert deps.world.hints == [("gw.gw-1", Message(stored.payload, headers))]


async def test_what_the_gates_refuse_is_not_held(deps: Desk) -> None:
    wrong = csr(deps.world.device.key, challenge(PRINTABLE, b"wrong"))
    request = await deps.world.request(csr=wrong)
    await deps.handle(request)

    assert deps.holds() == []
    assert isinstance(deps.world.verdict(request), EnrollmentRejected)


async def test_a_redelivered_request_is_held_once(deps: Desk) -> None:
    request = await deps.held()
    before = deps.holds()
    await deps.handle(request)

    assert deps.holds() == before
    assert deps.world.verdicts() == []


async def test_an_approval_becomes_the_verdict(deps: Desk) -> None:
    request = await deps.held()
    await deps.handle(await deps.decision(request))

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.gateway == "gw-1"
    assert verdict.existing == ""


async def test_an_approved_certificate_begins_when_it_was_approved(deps: Desk) -> None:
    """Not when it was asked for: that may be weeks ago."""
    request = await deps.held()
    deps.world.clock.seconds = NOW + 20 * 86400
    decision = await deps.decision(request)
    deps.world.clock.seconds += 3600
    await deps.handle(decision)

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.template.not_before == NOW + 20 * 86400 - 600
    assert verdict.valid_until == NOW + 21 * 86400


@pytest.mark.parametrize(
    ("note", "detail"), [("not ours", "not ours"), ("", "denied by an operator")]
)
async def test_a_denial_becomes_a_refusal_with_the_operators_note(
    deps: Desk, note: str, detail: str
) -> None:
    request = await deps.held()
    await turn()
    deps.world.hints.clear()
    await deps.handle(await deps.decision(request, False, note=note))
    await until(lambda: deps.world.hints)

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert (verdict.reason, verdict.detail) == (Reason.DENIED, detail)
    assert verdict.fail_info is FAIL_INFO[Reason.DENIED]
    assert deps.world.hints[0][1].payload == deps.world.verdicts()[0].payload


@pytest.mark.parametrize("approved", [True, False])
async def test_request_and_decision_redelivered_change_nothing(
    deps: Desk,
    approved: bool,  # noqa: FBT001 - a case
) -> None:
    request = await deps.held()
    decision = await deps.decision(request, approved)
    await deps.handle(decision)
    holds, verdicts = deps.holds(), deps.world.verdicts()
    for again in (decision, request, decision):
        await deps.handle(again)

    assert (deps.holds(), deps.world.verdicts()) == (holds, verdicts)


async def test_a_redelivered_decision_would_write_the_same_bytes(deps: Desk) -> None:
    request = await deps.held()
    decision = await deps.decision(request)
    await deps.handle(decision)
    (first,) = deps.world.verdicts()
    del deps.world.bus.streams["ENROLL_0"].messages[first.sequence]
    deps.world.clock.seconds += 900
    await deps.handle(decision)

    (again,) = deps.world.verdicts()
    assert (again.payload, again.headers) == (first.payload, first.headers)


# Decisions that decide nothing


async def decides_nothing(deps: Desk, decision: Stored) -> None:
    before = counted("security_events", stage="decision")
    verdicts = deps.world.verdicts()
    await deps.handle(decision)

    assert deps.world.verdicts() == verdicts
    assert counted("security_events", stage="decision") == before + 1


async def test_a_decision_about_what_was_not_held_decides_nothing(deps: Desk) -> None:
    request = await deps.world.request()

    await decides_nothing(deps, await deps.decision(request))


async def test_a_decision_about_no_request_decides_nothing(deps: Desk) -> None:
    event = HoldDecided(request_sha256=REQUEST_SHA256, approved=True, operator="op")
    decision = await append_signed(deps.world.bus, deps.decision_subject, event, OPERATOR)

    await decides_nothing(deps, decision)


@pytest.mark.parametrize("by", [STRANGER, VALIDATOR, ISSUING])
async def test_a_decision_that_no_operator_signed_decides_nothing(
    deps: Desk, by: EventSigner
) -> None:
    request = await deps.held()

    await decides_nothing(deps, await deps.decision(request, by=by))


async def test_a_decision_about_another_request_decides_nothing(deps: Desk) -> None:
    request = await deps.held()

    await decides_nothing(deps, await deps.decision(request, request_sha256="00" * 32))


async def test_a_decision_moved_from_another_enrollment_decides_nothing(deps: Desk) -> None:
    request = await deps.held()
    event = HoldDecided(request_sha256=request.sha256(), approved=True, operator="op")
    elsewhere = deps.world.enrollment.at(1).subject(Stage.DECISION)
    message = signed_event(event, elsewhere, OPERATOR)

    await decides_nothing(deps, await append(deps.world.bus, deps.decision_subject, message))


@pytest.mark.parametrize("by", [STRANGER, OPERATOR, ISSUING])
async def test_a_decision_about_a_forged_hold_decides_nothing(deps: Desk, by: EventSigner) -> None:
    """An operator shown a made-up hold must not open what the gates never saw."""
    request = await deps.world.request()
    held = EnrollmentHeld(request_sha256=request.sha256(), facts=facts(), gates=())
    await append_signed(deps.world.bus, deps.hold_subject, held, by)

    await decides_nothing(deps, await deps.decision(request))


async def test_a_hold_of_another_request_is_no_hold(deps: Desk) -> None:
    request = await deps.world.request()
    held = EnrollmentHeld(request_sha256=REQUEST_SHA256, facts=facts(), gates=())
    await append_signed(deps.world.bus, deps.hold_subject, held, VALIDATOR)

    await decides_nothing(deps, await deps.decision(request))


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b'{"x":' + b"[" * 50_000])
async def test_a_decision_that_cannot_be_read_decides_nothing(deps: Desk, payload: bytes) -> None:
    await deps.held()
    message = Message(payload, {"Scepstream-Type": "HoldDecided"})

    await decides_nothing(deps, await append(deps.world.bus, deps.decision_subject, message))


# What happened while it was held


async def test_a_key_compromised_meanwhile_is_refused_after_all(deps: Desk) -> None:
    request = await deps.held()
    await deps.certified(record(not_after=NOW - 1))
    await deps.certified(KeyCompromised(request_sha256=REQUEST_SHA256, serial=SERIAL))
    await deps.handle(await deps.decision(request))

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.KEY_COMPROMISED


async def test_a_certificate_that_the_key_got_meanwhile_is_the_answer_while_it_is_young(
    deps: Desk,
) -> None:
    """Two requests of one key were held; the other one was approved first."""
    request = await deps.held()
    names = names_sha256(read_csr(device_csr(deps.world.device)))
    await deps.certified(record(names_sha256=names, not_before=NOW, not_after=NOW + 300 * DAY))
    deps.world.clock.seconds = NOW + 199 * DAY
    await deps.handle(await deps.decision(request))

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.existing == SERIAL


async def test_a_certificate_that_ended_while_the_request_was_held_is_no_answer(
    deps: Desk,
) -> None:
    """The time of the decision counts: a device must not be given what has expired."""
    request = await deps.held()
    names = names_sha256(read_csr(device_csr(deps.world.device)))
    await deps.certified(record(names_sha256=names, not_before=NOW, not_after=NOW + 300 * DAY))
    deps.world.clock.seconds = NOW + 301 * DAY
    await deps.handle(await deps.decision(request))

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.existing == ""


async def test_a_policy_that_was_changed_meanwhile_counts(deps: Desk) -> None:
    request = await deps.held()
    deps.world.allow(key_types=frozenset({"ec:p256"}))
    await deps.handle(await deps.decision(request))

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.KEY_NOT_ALLOWED


async def test_a_profile_that_is_gone_meanwhile_approves_nothing(deps: Desk) -> None:
    request = await deps.held()
    deps.world.evaluator.live.current.policies.clear()
    await deps.handle(await deps.decision(request))

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.NOT_A_PROFILE


async def test_a_decision_is_acted_on_where_the_profile_is_automatic_by_now(deps: Desk) -> None:
    request = await deps.held()
    deps.world.allow(manual=False)
    await deps.handle(await deps.decision(request))

    assert isinstance(deps.world.verdict(request), EnrollmentApproved)


# Giving up


async def test_giving_up_on_a_decision_ends_its_request(deps: Desk) -> None:
    request = await deps.held()
    decision = await deps.decision(request)
    await deps.world.consumer.give_up(decision)

    verdict = deps.world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.POISON


async def test_giving_up_on_a_decision_about_no_request_does_nothing(deps: Desk) -> None:
    event = HoldDecided(request_sha256=REQUEST_SHA256, approved=True, operator="op")
    decision = await append_signed(deps.world.bus, deps.decision_subject, event, OPERATOR)
    await deps.world.consumer.give_up(decision)

    assert deps.world.verdicts() == []


async def test_giving_up_on_a_held_request_ends_it(deps: Desk) -> None:
    request = await deps.held()
    await deps.world.consumer.give_up(request)

    assert isinstance(deps.world.verdict(request), EnrollmentRejected)
