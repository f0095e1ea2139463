"""Gate 9 with Graph: decides by a device's compliance whether it may have a certificate. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from services.validator.microsoft.model import EntraDevice, ManagedDevice
from shared.x509.dn import read_dn

_GUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DISABLED: Final = "disabled"


class Choice(StrEnum):
    """What a rule does with a device; `defer` lets it wait."""

    ALLOW = "allow"
    DENY = "deny"
    DEFER = "defer"


# By state as Intune calls it; states that are not listed are denied.
DEFAULT_POLICY: Final[Mapping[str, Choice]] = {
    "compliant": Choice.ALLOW,
    "inGracePeriod": Choice.ALLOW,
}
STATES: Final = (
    "compliant", "noncompliant", "inGracePeriod", "configManager", "conflict", "error", "unknown",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ComplianceRules:
    """A profile's rules. `entra`: the device of Entra ID decides, not the one of Intune.

    `grace` is how long (seconds) after its enrollment in Intune a device is allowed in any state.
    """

    entra: bool = False
    policy: Mapping[str, Choice] = field(default_factory=lambda: DEFAULT_POLICY)
    grace: float = 0.0
    not_found: Choice = Choice.DENY
    on_error: Choice = Choice.DENY


@dataclass(frozen=True, slots=True)
class DeviceIds:
    """What a request names its device by, as GUIDs in lower case; "" if it does not.

    `intune` is from an IntuneDeviceId URI. `named` is the CN, which may be either service's ID.
    """

    intune: str = ""
    named: str = ""

    def __bool__(self) -> bool:
        """Return whether the request names a device at all."""
        return bool(self.intune or self.named)


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device's state, and when it enrolled in Intune (Unix seconds, 0 if unknown)."""

    state: str
    enrolled_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Compliance:
    """What to do with a device, and why."""

    choice: Choice
    detail: str


def device_ids(subject: str, device_id: str) -> DeviceIds:
    """Return the IDs in a request's subject (RFC 4514) and its IntuneDeviceId URI."""
    names = (value.lower() for kind, value in read_dn(subject) if kind == "CN")
    named = next((name for name in names if _GUID.fullmatch(name)), "")
    return DeviceIds(device_id if _GUID.fullmatch(device_id) else "", named)


def state_of(found: ManagedDevice | EntraDevice | None) -> DeviceState | None:
    """Return what Graph says of a device, None if it does not know it."""
    if found is None:
        return None
    if isinstance(found, ManagedDevice):
        return DeviceState(found.compliance, found.enrolled_at)
    if found.enabled is not True:
        return DeviceState(DISABLED)
    states = {True: "compliant", False: "noncompliant", None: "unknown"}
    return DeviceState(states[found.compliant])


def judge(rules: ComplianceRules, device: DeviceState | None, now: float) -> Compliance:
    """Return what the rules say of a device at a time (Unix seconds); None: Graph knows it not."""
    if device is None:
        return Compliance(rules.not_found, "Graph does not know the device")
    choice = rules.policy.get(device.state, DEFAULT_POLICY.get(device.state, Choice.DENY))
    if device.state == DISABLED:
        return Compliance(Choice.DENY, "the device is disabled in Entra ID")
    is_new = 0 < device.enrolled_at <= now < device.enrolled_at + rules.grace
    if choice is not Choice.ALLOW and is_new:
        return Compliance(Choice.ALLOW, f"{device.state}, enrolled less than the grace ago")
    return Compliance(choice, f"the device is {device.state}")


def without_answer(rules: ComplianceRules, detail: str) -> Compliance:
    """Return what the rules say if Graph cannot be asked."""
    return Compliance(rules.on_error, detail)
