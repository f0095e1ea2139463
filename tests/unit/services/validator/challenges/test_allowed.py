from services.validator.challenges.allowed import SECONDS, AllowedDevices
from services.validator.compliance import Choice, Compliance, DeviceIds

DEVICE, OTHER = DeviceIds(intune="a"), DeviceIds(named="a")
ALLOWED = Compliance(Choice.ALLOW, "the device is compliant")


def test_an_answer_that_allows_a_device_is_kept_for_a_minute() -> None:
    allowed = AllowedDevices()
    allowed.keep(DEVICE, ALLOWED, 1000.0)

    assert allowed.get(DEVICE, 1000.0 + SECONDS - 1) == ALLOWED
    assert allowed.get(DEVICE, 1000.0 + SECONDS) is None
    assert allowed.get(DEVICE, 900.0) is None
    assert allowed.get(OTHER, 1000.0) is None
    assert SECONDS <= 60


def test_no_other_answer_is_kept() -> None:
    allowed = AllowedDevices()
    for choice in (Choice.DENY, Choice.DEFER):
        allowed.keep(DEVICE, Compliance(choice, "the device is noncompliant"), 1000.0)

    assert allowed.get(DEVICE, 1000.0) is None


def test_the_oldest_answers_are_dropped_for_new_ones() -> None:
    allowed = AllowedDevices()
    for number in range(4100):
        allowed.keep(DeviceIds(intune=f"{number}"), ALLOWED, 1000.0)

    assert allowed.get(DeviceIds(intune="3"), 1000.0) is None
    assert allowed.get(DeviceIds(intune="4"), 1000.0) == ALLOWED
