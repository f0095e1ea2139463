import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from shared.bus.core import BusUnavailableError
from shared.bus.topology import gateway_hints
from shared.ca.chains import ChainBook
from shared.log.envelope import SUBJECT, TYPE, Message, Stored, encode
from shared.log.events.certificates import CaChain
from shared.log.events.enrollment import EnrollmentApproved, EnrollmentRejected
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId, chain_subject
from shared.x509.blocked_keys import BlockedKeys
from tests.support import pki
from tests.support.messages import PRINTABLE, Identity, challenge, csr, spki
from tests.support.validators import World, validating
from tests.support.world import (
    GATEWAY,
    ISSUER,
    NANOSECONDS,
    NOW,
    STRANGER,
    VALIDATOR,
    append,
    counted,
    enrollment_of,
    requested,
    signed_event,
    turn,
    until,
)


@pytest.fixture
async def world(
    device: Identity, ra: Identity, ec_key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[World]:
    async with validating(device, ra, ec_key) as found:
        yield found


async def test_a_good_request_gets_one_approval(world: World) -> None:
    request = await world.request()
    await world.consumer.handle(request)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.gateway == GATEWAY
    assert verdict.facts.subject == "CN=device, O=Lab"
    assert verdict.valid_until == NOW + 86400
    assert verdict.template.not_before == NOW - 600
    assert world.verdicts()[0].subject == world.enrollment.subject(Stage.VERDICT)


async def test_an_approval_is_not_hinted_for_it_is_no_end(world: World) -> None:
    await world.consumer.handle(await world.request())
    await turn()

    assert world.hints == []


@pytest.mark.parametrize(("permitted", "allowed"), [("example", True), ("corp.example", False)])
async def test_a_name_that_a_ca_above_excludes_is_refused(
    world: World,
    permitted: str,
    allowed: bool,  # noqa: FBT001 - a case
) -> None:
    root_key = ec.derive_private_key(77, ec.SECP256R1())
    named, root_name = world.ca.certificate.subject, pki.name("Root")
    constraints = x509.NameConstraints([x509.DNSName(permitted)], None)
    root = x509.CertificateBuilder(
        root_name, root_name, root_key.public_key(), 1, pki.START, pki.END
    ).add_extension(constraints, critical=True)
    below = x509.CertificateBuilder(
        root_name, named, world.ca.certificate.public_key(), 2, pki.START, pki.END
    )
    chain = tuple(pki.der(each.sign(root_key, hashes.SHA256())) for each in (below, root))
    await world.bus.put(chain_subject(ISSUER), encode(CaChain(certificates=chain)))
    await world.evaluator.chains.reread(ISSUER, (world.ca.pin,))
    request = await world.request()
    await world.consumer.handle(request)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentApproved) is allowed
    if isinstance(verdict, EnrollmentRejected):
        assert verdict.reason is Reason.SAN_NOT_ALLOWED
        assert verdict.detail.endswith("is outside the name constraints of CN=Root")


async def test_a_refusal_is_stored_and_hinted_to_the_gateway_that_asked(world: World) -> None:
    bad = csr(world.device.key, challenge(PRINTABLE, b"wrong"))
    enrollment = enrollment_of(world.device, bad)
    event = requested(world.device, world.ra, enrollment, csr=bad)
    request = await append(world.bus, enrollment.subject(Stage.REQUEST), event)
    before = counted("verdicts", profile="demo", reason="challenge_wrong")
    await world.consumer.handle(request)
    await until(lambda: world.hints)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.CHALLENGE_WRONG
    assert verdict.fail_info is FAIL_INFO[Reason.CHALLENGE_WRONG]
    assert [gate.passed for gate in verdict.gates] == [True, True, True, True, False]
    assert verdict.facts is not None
    stored = world.verdicts()[0]
    headers = {**stored.headers, SUBJECT: stored.subject}
    assert world.hints == [(gateway_hints(GATEWAY), Message(stored.payload, headers))]
    assert counted("verdicts", profile="demo", reason="challenge_wrong") == before + 1


async def test_a_reloaded_list_of_blocked_keys_counts(world: World) -> None:
    digest = hashlib.sha256(spki(world.device.key.public_key())).digest()
    live = world.evaluator.live
    live.current = replace(live.current, blocked_keys=BlockedKeys.of({digest}))
    request = await world.request()
    await world.consumer.handle(request)
    verdict = world.verdict(request)

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.KEY_COMPROMISED
    assert (verdict.gates[-1].gate, verdict.detail) == (
        "compromise",
        "the key is on the list of blocked keys",
    )


async def test_once_the_ca_has_ended_requests_are_refused_with_its_end(world: World) -> None:
    """By the log's time of the request, whatever a process's clock says."""
    world.clock.seconds += 20 * 366 * 86400
    request = await world.request()
    await world.consumer.handle(request)
    verdict = world.verdict(request)

    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.CA_NOT_VALID
    assert verdict.detail.startswith("the CA expired at 2044-01-01 00:00:00 UTC")


async def test_a_redelivery_writes_nothing_and_would_write_the_same_bytes(world: World) -> None:
    request = await world.request()
    await world.consumer.handle(request)
    (first,) = world.verdicts()
    await world.consumer.handle(request)

    assert world.verdicts() == [first]
    world.bus.streams["ENROLL_0"].messages.pop(first.sequence)
    await world.consumer.handle(request)
    (again,) = world.verdicts()
    assert (again.payload, again.headers) == (first.payload, first.headers)


async def test_a_redelivered_refusal_is_hinted_again(world: World) -> None:
    """The first hint may have been lost with its validator."""
    request = await world.request("unknown")
    await world.consumer.handle(request)
    await world.consumer.handle(request)
    await until(lambda: len(world.hints) == 2)

    assert world.hints[0] == world.hints[1]


async def test_a_stored_refusal_is_announced_instead_of_ones_own_approval(world: World) -> None:
    request = await world.request()
    first = EnrollmentRejected(
        request_sha256=request.sha256(),
        reason=Reason.POISON,
        fail_info=FAIL_INFO[Reason.POISON],
        detail="was there first",
    )
    subject = world.enrollment.subject(Stage.VERDICT)
    stored = await append(world.bus, subject, signed_event(first, subject, VALIDATOR))
    await world.consumer.handle(request)
    await until(lambda: world.hints)

    assert world.verdicts() == [stored]
    assert world.hints[0][1].payload == stored.payload


async def test_a_stored_verdict_that_is_not_authentic_is_reported_and_not_announced(
    world: World,
) -> None:
    request = await world.request()
    forged = EnrollmentRejected(
        request_sha256=request.sha256(),
        reason=Reason.POISON,
        fail_info=FAIL_INFO[Reason.POISON],
        detail="",
    )
    subject = world.enrollment.subject(Stage.VERDICT)
    stored = await append(world.bus, subject, signed_event(forged, subject, STRANGER))
    before = counted("security_events", stage="verdict")
    await world.consumer.handle(request)
    await turn()

    assert world.verdicts() == [stored]
    assert world.hints == []
    assert counted("security_events", stage="verdict") == before + 1


async def test_a_request_of_a_profile_that_is_not_here_is_refused(world: World) -> None:
    request = await world.request("unknown")
    await world.consumer.handle(request)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.NOT_A_PROFILE


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(b"no json", {TYPE: "EnrollmentRequested"}), Reason.BAD_MESSAGE),
        (Message(b"{}", {}), Reason.BAD_MESSAGE),
        (encode(CaChain(certificates=())), Reason.NOT_A_PROFILE),
    ],
)
async def test_what_is_no_request_is_refused(
    world: World, message: Message, reason: Reason
) -> None:
    """Whoever stored it: the log must not keep it in flight."""
    request = await append(world.bus, world.enrollment.subject(Stage.REQUEST), message)
    await world.consumer.handle(request)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is reason


async def test_without_the_ca_chain_the_request_waits(world: World) -> None:
    world.evaluator.chains = ChainBook.of(world.bus, [(ISSUER, ("other",))])

    with pytest.raises(BusUnavailableError):
        await world.consumer.handle(await world.request())
    assert world.verdicts() == []


async def test_the_time_of_the_decision_is_the_logs(world: World) -> None:
    request = await world.request()
    late = Stored(request.subject, request.payload, request.headers, 1, (NOW + 5) * NANOSECONDS)
    await world.consumer.handle(late)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentApproved)
    assert verdict.valid_until == NOW + 5 + 86400


async def test_giving_up_ends_a_request_with_a_signed_refusal(world: World) -> None:
    request = await world.request()
    await world.consumer.give_up(request)
    await until(lambda: world.hints)

    verdict = world.verdict(request)
    assert isinstance(verdict, EnrollmentRejected)
    assert verdict.reason is Reason.POISON


async def test_giving_up_after_a_verdict_changes_nothing(world: World) -> None:
    request = await world.request()
    await world.consumer.handle(request)
    before = world.verdicts()
    await world.consumer.give_up(request)

    assert world.verdicts() == before


async def test_giving_up_bears_what_cannot_even_be_read(world: World) -> None:
    """A gateway taken over may append it; what is given up on must be over then."""
    deep = Message(b'{"x":' + b"[" * 50_000, {TYPE: "EnrollmentRequested"})
    request = await append(world.bus, world.enrollment.subject(Stage.REQUEST), deep)
    await world.consumer.give_up(request)

    assert world.verdict(request)


async def test_giving_up_bears_a_subject_that_names_no_enrollment(world: World) -> None:
    """Else it is handed out for ever, and enough of them stop the validator."""
    request = await append(world.bus, "enroll.0.demo.t.c.first.request", Message(b"", {}))
    await world.consumer.give_up(request)

    assert world.verdicts() == []


async def test_profiles_that_are_not_configured_make_no_metric_series(world: World) -> None:
    """A gateway's word alone names them: 2 000 planted names were 2 000 series for ever."""
    before = counted("verdicts", profile="none", reason="bad_message")
    for number in range(3):
        enrollment = EnrollmentId("0", f"planted-{number}", "t", "c", 0)
        request = await append(world.bus, enrollment.subject(Stage.REQUEST), Message(b"{}", {}))
        await world.consumer.handle(request)

    assert counted("verdicts", profile="none", reason="bad_message") == before + 3
    assert counted("verdicts", profile="planted-0", reason="bad_message") == 0
