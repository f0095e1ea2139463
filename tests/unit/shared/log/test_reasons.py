import pytest

from shared.log.reasons import FAIL_INFO, Reason
from shared.scep.errors import FailInfo


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_failinfo(reason: Reason) -> None:
    assert isinstance(FAIL_INFO[reason], FailInfo)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.BAD_ALGORITHM, FailInfo.BAD_ALG),
        (Reason.KEY_NOT_ALLOWED, FailInfo.BAD_ALG),
        (Reason.BAD_MESSAGE, FailInfo.BAD_MESSAGE_CHECK),
        (Reason.CHALLENGE_WRONG, FailInfo.BAD_MESSAGE_CHECK),
        (Reason.SAN_NOT_ALLOWED, FailInfo.BAD_REQUEST),
        (Reason.NO_SUCH_TRANSACTION, FailInfo.BAD_CERT_ID),
    ],
)
def test_devices_are_told_what_kind_of_failure_it_was(reason: Reason, expected: FailInfo) -> None:
    assert FAIL_INFO[reason] is expected


def test_a_missing_and_a_wrong_challenge_look_the_same() -> None:
    assert FAIL_INFO[Reason.CHALLENGE_MISSING] is FAIL_INFO[Reason.CHALLENGE_WRONG]
