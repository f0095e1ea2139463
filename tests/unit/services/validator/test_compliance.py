"""Gate 9 with Graph: which devices may have a certificate, by their state."""

from dataclasses import replace

import pytest

from services.validator.compliance import (
    DEFAULT_POLICY,
    DISABLED,
    STATES,
    Choice,
    ComplianceRules,
    DeviceIds,
    DeviceState,
    device_ids,
    judge,
    state_of,
    without_answer,
)
from services.validator.microsoft.model import EntraDevice, ManagedDevice
from tests.support.world import NOW

GUID = "4b1f5a60-3f3b-4a43-8f0a-0c1f5a603f3b"
RULES = ComplianceRules(grace=3600.0)
MANAGED = ManagedDevice(GUID, "", "noncompliant", 0.0, NOW - 60.0, 0.0, "", "Windows")
ENTRA = EntraDevice(GUID, GUID, True, True, True, 0.0)


@pytest.mark.parametrize("state", STATES)
def test_only_compliant_devices_and_those_in_their_grace_period_are_allowed(state: str) -> None:
    wanted = Choice.ALLOW if state in ("compliant", "inGracePeriod") else Choice.DENY

    assert judge(ComplianceRules(), DeviceState(state), NOW).choice is wanted
    assert DEFAULT_POLICY.get(state, Choice.DENY) is wanted


@pytest.mark.parametrize("choice", Choice)
@pytest.mark.parametrize("state", STATES)
def test_the_policy_decides_each_state(state: str, choice: Choice) -> None:
    rules = ComplianceRules(policy={state: choice})

    assert judge(rules, DeviceState(state), NOW).choice is choice


def test_a_policy_about_one_state_leaves_the_others_as_they_are() -> None:
    rules = ComplianceRules(policy={"unknown": Choice.ALLOW})

    assert judge(rules, DeviceState("compliant"), NOW).choice is Choice.ALLOW
    assert judge(rules, DeviceState("noncompliant"), NOW).choice is Choice.DENY


@pytest.mark.parametrize(
    ("enrolled_at", "choice"),
    [
        (NOW, Choice.ALLOW),
        (NOW - 3599, Choice.ALLOW),
        (NOW - 3600, Choice.DENY),
        (NOW + 1, Choice.DENY),
        (0, Choice.DENY),
    ],
)
def test_a_new_device_has_its_grace(enrolled_at: int, choice: Choice) -> None:
    device = DeviceState("noncompliant", float(enrolled_at))

    assert judge(RULES, device, NOW).choice is choice
    assert judge(ComplianceRules(), device, NOW).choice is Choice.DENY


def test_a_disabled_device_has_no_grace_and_no_policy() -> None:
    rules = replace(RULES, policy={DISABLED: Choice.ALLOW})

    assert judge(rules, DeviceState(DISABLED, NOW), NOW).choice is Choice.DENY


@pytest.mark.parametrize("choice", Choice)
def test_an_unknown_device_and_an_outage_have_rules_of_their_own(choice: Choice) -> None:
    assert judge(ComplianceRules(not_found=choice), None, NOW).choice is choice
    assert without_answer(ComplianceRules(on_error=choice), "away").choice is choice
    assert judge(ComplianceRules(), None, NOW).choice is Choice.DENY
    assert without_answer(ComplianceRules(), "away").choice is Choice.DENY


def test_graphs_devices_have_a_state() -> None:
    assert state_of(MANAGED) == DeviceState("noncompliant", NOW - 60.0)
    assert state_of(ENTRA) == DeviceState("compliant")
    assert state_of(replace(ENTRA, compliant=False)) == DeviceState("noncompliant")
    assert state_of(replace(ENTRA, compliant=None)) == DeviceState("unknown")
    assert state_of(None) is None


def test_a_device_that_is_not_known_to_be_enabled_counts_as_disabled() -> None:
    for enabled in (False, None):
        assert state_of(replace(ENTRA, enabled=enabled)) == DeviceState(DISABLED)


@pytest.mark.parametrize(
    ("subject", "device_id", "ids"),
    [
        (f"CN={GUID}", "", DeviceIds("", GUID)),
        (f"O=Corp, CN={GUID.upper()}", "", DeviceIds("", GUID)),
        ("CN=laptop-7", GUID, DeviceIds(GUID, "")),
        (f"CN={GUID}", GUID, DeviceIds(GUID, GUID)),
        (f"CN={GUID}x", "", DeviceIds()),
        (f"CN=' or id eq {GUID}", "x", DeviceIds()),
        (f"OU={GUID}", "", DeviceIds()),
        ("", "", DeviceIds()),
    ],
)
def test_ids_are_whole_guids_of_the_cn_and_the_uri(
    subject: str, device_id: str, ids: DeviceIds
) -> None:
    assert device_ids(subject, device_id) == ids
    assert bool(ids) == bool(ids.intune or ids.named)
