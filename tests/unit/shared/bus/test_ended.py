"""An attempt has failed if our own signed events say so, whatever else is on its subjects."""

import pytest

from shared.bus.ended import has_failed
from shared.log.envelope import Message
from shared.log.events.enrollment import (
    CertificateConfirmed,
    CertificateIssued,
    ConfirmationFailed,
    EnrollmentRejected,
)
from shared.log.reasons import FAIL_INFO, Reason
from shared.log.stages import Stage
from shared.log.subjects import EnrollmentId
from tests.fakes.memory_bus import MemoryBus
from tests.support.world import (
    ISSUING,
    PROFILE,
    REQUEST_SHA256,
    TRUSTED_ISSUERS,
    TRUSTED_VALIDATORS,
    VALIDATOR,
    append_signed,
    memory_bus,
)

ENROLLMENT = EnrollmentId("0", PROFILE, "t" * 8, "c" * 8, 0)
PLANTED = Message(b"planted", {})


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


async def failed(bus: MemoryBus) -> bool:
    return await has_failed(bus, ENROLLMENT.prefix(), TRUSTED_VALIDATORS, TRUSTED_ISSUERS)


async def reject(bus: MemoryBus) -> None:
    reason = Reason.CHALLENGE_WRONG
    verdict = EnrollmentRejected(
        request_sha256=REQUEST_SHA256, reason=reason, fail_info=FAIL_INFO[reason], detail=""
    )
    await append_signed(bus, ENROLLMENT.subject(Stage.VERDICT), verdict, VALIDATOR)


async def test_a_rejection_counts_behind_a_forged_outcome(bus: MemoryBus) -> None:
    await bus.append(ENROLLMENT.subject(Stage.OUTCOME), PLANTED)
    assert not await failed(bus)

    await reject(bus)
    assert await failed(bus)


async def test_a_forged_verdict_means_that_no_issuer_will_act(bus: MemoryBus) -> None:
    await bus.append(ENROLLMENT.subject(Stage.VERDICT), PLANTED)

    assert await failed(bus)


async def test_a_certificate_that_stays_withheld_is_a_failure(bus: MemoryBus) -> None:
    issued = CertificateIssued(
        request_sha256=REQUEST_SHA256,
        issuer="local",
        serial="40",
        certificate=b"",
        not_after=0,
        confirmed_by="contoso",
        withheld=True,
    )
    await append_signed(bus, ENROLLMENT.subject(Stage.OUTCOME), issued, ISSUING)
    assert not await failed(bus)

    reason = Reason.NOT_CONFIRMED
    refused = ConfirmationFailed(
        request_sha256=REQUEST_SHA256,
        connection="contoso",
        serial="40",
        reason=reason,
        fail_info=FAIL_INFO[reason],
        detail="",
    )
    await append_signed(bus, ENROLLMENT.subject(Stage.CONFIRMATION), refused, VALIDATOR)
    assert await failed(bus)


async def test_a_confirmed_certificate_is_none(bus: MemoryBus) -> None:
    event = CertificateConfirmed(request_sha256=REQUEST_SHA256, connection="contoso", serial="40")
    await append_signed(bus, ENROLLMENT.subject(Stage.CONFIRMATION), event, VALIDATOR)

    assert not await failed(bus)
