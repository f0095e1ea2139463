"""Intune's validation API fails closed: only a "Success" in time leads to a certificate."""

import time
from typing import Any

import pytest

from cli.fake_microsoft.model import CODES
from shared.scep.certrep import PkiStatus
from shared.scep.errors import FailInfo
from tests.integration.intune_devices import (
    Intune,
    Managed,
    at_once,
    given_out,
    in_state,
    managed,
    quick_device,
    refusal,
    revoked,
    serials,
)
from tests.support.system import wait_until

BAD_TIME = {"ChallengeInvalidTimestamp", "ChallengeExpired"}
BAD_REQUEST = {
    "CertificateRequestDecodingFailed", "SubjectNameMissing", "SubjectNameMismatch",
    "SubjectAltNameMissing", "SubjectAltNameMismatch", "KeyUsageMismatch", "KeyLengthMismatch",
    "EnhancedKeyUsageMissing", "EnhancedKeyUsageMismatch", "AadKeyIdentifierListMissing",
    "RegisteredKeyMismatch", "ScepProfileNoLongerTargetedToTheClient",
}  # fmt: skip
# Codes that are none: unheard of, of another case, of another type, or missing.
NO_CODES: list[Any] = [
    "UnheardOfCode", "success", "Success ", "", 0, 1, True, None, ["Success"], {"code": "Success"},
]  # fmt: skip
ANSWERS: list[Any] = [code for code in CODES if code != "Success"] + NO_CODES
# Faults of the answer; the slow ones use up the budget of 2 s of their connections. The answers
# in between keep the breaker closed, which opens after five attempts without one.
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("reset", {}),
    ("html", {}),
    ("status", {"status": 500}),
    ("truncated", {}),
    ("delay", {"seconds": 2.5}),
    ("wrong-type", {}),
    ("drip", {"seconds": 0.05}),
    ("redirect", {}),
    ("huge", {}),
    ("status", {"status": 400}),
    ("status", {"status": 401}),
    ("status", {"status": 403}),
    ("status", {"status": 429, "retry_after": "30.5"}),
]


def expected(code: Any) -> FailInfo:
    if keyed(code) in BAD_REQUEST:
        return FailInfo.BAD_REQUEST
    return FailInfo.BAD_TIME if keyed(code) in BAD_TIME else FailInfo.BAD_MESSAGE_CHECK


def keyed(code: Any) -> Any:
    return code if isinstance(code, str) else repr(code)


def test_every_code_but_success_at_validation_refuses_the_device(intune: Intune) -> None:
    def outcome(code: Any) -> tuple[FailInfo | None, Managed]:
        one = managed(intune, device=quick_device())
        intune.fake.answer(one.device.transaction.decode(), code)
        return refusal(one.enroll(intune)), one

    found = at_once(outcome, ANSWERS)

    refused = {keyed(c): f for c, (f, _) in zip(ANSWERS, found, strict=True)}
    assert refused == {keyed(code): expected(code) for code in ANSWERS}
    asked = [intune.asked(one.device, "validate") for _, one in found]
    assert asked == [1] * len(ANSWERS)
    _assert_not_notified(intune, [one for _, one in found])


def test_every_code_but_success_at_notification_withholds_and_revokes(intune: Intune) -> None:
    def outcome(code: Any) -> Managed:
        one = managed(intune, device=quick_device())
        intune.fake.answer(one.device.transaction.decode(), "Success", code)
        assert refusal(one.enroll(intune)) is FailInfo.BAD_REQUEST, code
        return one

    found = at_once(outcome, ANSWERS)

    _assert_withdrawn(intune, found, "windows")


@pytest.mark.parametrize("stage", ["validate", "success"])
def test_no_usable_answer_means_no_certificate(intune: Intune, stage: str) -> None:
    tenant, profile = {"validate": ("contoso", "quick"), "success": ("fabrikam", "brief")}[stage]
    failed = []
    for kind, options in FAULTS:
        intune.fake.clear_faults()
        intune.fake.fault(stage, kind, -1, tenant=tenant, **options)
        one = managed(intune, tenant, device=quick_device())
        begun = time.monotonic()
        assert refusal(one.enroll(intune, profile)) is FailInfo.BAD_REQUEST, (kind, options)
        assert time.monotonic() - begun < 6, (kind, options)
        assert intune.fake.journal(stage, tenant=tenant)[-1].fault == kind
        failed.append(one)

    intune.fake.clear_faults()
    if stage == "validate":
        _assert_not_notified(intune, failed)
    else:
        _assert_withdrawn(intune, failed, profile)


def test_an_open_breaker_refuses_at_once_and_spares_other_connections(intune: Intune) -> None:
    intune.fake.fault("validate", "status", -1, tenant="contoso", status=500)
    ones = [managed(intune, device=quick_device()) for _ in range(4)]
    for one in ones[:3]:
        assert refusal(one.enroll(intune, "broken")) is FailInfo.BAD_REQUEST
    intune.fake.clear_faults()

    begun = time.monotonic()
    assert refusal(ones[3].enroll(intune, "broken")) is FailInfo.BAD_REQUEST
    assert time.monotonic() - begun < 2
    assert intune.asked(ones[3].device) == 0
    assert managed(intune).enroll(intune).status is PkiStatus.SUCCESS
    _assert_not_notified(intune, ones)


def test_our_own_failure_after_validation_is_notified_once(intune: Intune) -> None:
    one = in_state(intune, compliance_state="noncompliant")

    assert refusal(one.enroll(intune, "plain")) is FailInfo.BAD_REQUEST
    notice = intune.failure_notified(one.device)
    assert notice.code == "Success"
    assert notice.hresult == -2147467259
    assert 0 < len(notice.description) <= 255
    assert one.challenge not in notice.description
    assert [e.route for e in intune.fake.journal() if e.transaction_id == notice.transaction] == [
        "validate", "failure",
    ]  # fmt: skip


def test_a_device_enrolls_after_its_notification_failed(intune: Intune) -> None:
    one = managed(intune)
    intune.fake.answer(one.device.transaction.decode(), "Success", "Unknown")
    assert refusal(one.enroll(intune)) is FailInfo.BAD_REQUEST
    intune.fake.answer(one.device.transaction.decode(), "Success")
    (first,) = intune.notifications(one.device, "success")
    wait_until(lambda: revoked(intune, [int(first.serial, 16)]), 20, "the revocation")

    again = managed(intune, device=type(one.device)(one.device.identity))
    assert again.certificate(intune).serial_number != int(first.serial, 16)


def _assert_not_notified(intune: Intune, ones: list[Managed]) -> None:
    """Nothing was notified, after a failure that is notified has been."""
    control = in_state(intune, compliance_state="noncompliant")
    assert refusal(control.enroll(intune, "plain")) is FailInfo.BAD_REQUEST
    intune.failure_notified(control.device)
    assert [n for one in ones for n in intune.notifications(one.device)] == []


def _assert_withdrawn(intune: Intune, ones: list[Managed], profile: str) -> None:
    """The certificates of these devices are revoked, and GetCert does not give them out."""
    made = serials(intune, [one.device for one in ones])
    assert len(made) == len(ones)
    given = at_once(lambda serial: given_out(intune, serial, profile), made)
    assert [refusal(each) for each in given] == [FailInfo.BAD_CERT_ID] * len(made)
    wait_until(lambda: revoked(intune, made, profile), 20, "the CRL with all of them")
    told = [intune.notifications(one.device, "failure") for one in ones]
    assert told == [[]] * len(ones)
    assert [intune.asked(one.device, "validate") for one in ones] == [1] * len(ones)
