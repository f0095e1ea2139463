"""Gate 9: asks an operator's own plug-in about the device; denials and errors both refuse."""

import asyncio
import importlib
import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from services.validator.challenges.answers import recordable
from services.validator.challenges.proved import LOOKED_UP_CLAIMS, proved
from services.validator.challenges.verifier import (
    ChallengeRequest,
    ChallengeResult,
    passed,
    refused,
)
from shared.config.load import SettingsError
from shared.log.events.state import Claim
from shared.log.reasons import Reason
from shared.observe.logs import log_failure
from shared.runtime.places import Places


@dataclass(frozen=True, slots=True)
class DeviceQuestion:
    """Which device wants a certificate: what the connector says of it, and what the CSR says.

    `device_id` is the GUID of an IntuneDeviceId URI in the CSR, "" if there is none.
    """

    profile: str
    issuer: str
    subject: str
    device_name: str
    device_id: str


@dataclass(frozen=True, slots=True)
class DeviceAnswer:
    """Whether the device may have a certificate, and a sentence for the record (no secrets).

    `claims` says more about the device, for the names of its certificate (docs/challenges.md).
    """

    allow: bool
    detail: str = ""
    claims: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class DeviceState(Protocol):
    """A plug-in: the object that the profile's `device_state` names as module:attribute."""

    async def __call__(self, question: DeviceQuestion) -> DeviceAnswer:
        """Answer within the profile's `device_state_timeout`; otherwise the device is refused."""


@dataclass(frozen=True)
class DeviceStateGate:
    """A profile's plug-in and its time limit in seconds."""

    plugin: DeviceState
    timeout: float
    places: Places = field(default_factory=Places)

    async def ask(self, asked: ChallengeRequest, claim: Claim) -> ChallengeResult:
        """Return the gate's result; only an explicit yes passes."""
        with self.places.taken() as free:
            if not free:
                return _failed(
                    "too many requests are waiting for the device-state check: try again later"
                )
            return await self._in_time(asked, claim)

    async def _in_time(self, asked: ChallengeRequest, claim: Claim) -> ChallengeResult:
        question = DeviceQuestion(
            profile=asked.enrollment.profile,
            issuer=claim.issuer,
            subject=claim.subject,
            device_name=claim.device,
            device_id=asked.opened.facts.device_id,
        )
        started = time.monotonic()
        # In a task of its own: if the plug-in cancels itself, the caller is not cancelled.
        task = asyncio.ensure_future(self._ask(question, asked.challenge))
        try:
            await asyncio.wait({task}, timeout=self.timeout)
        finally:
            task.cancel()  # it gets no more time, and does not outlive its caller
        if not task.done() or time.monotonic() - started > self.timeout:
            return _failed("the device-state plug-in did not answer in time")
        if task.cancelled():
            return _failed("the device-state check failed")
        return task.result()

    async def _ask(self, question: DeviceQuestion, challenge: str) -> ChallengeResult:
        try:
            answer = await self.plugin(question)
        except Exception as error:  # noqa: BLE001 - whatever a plug-in raises, the gate refuses
            log_failure("device_state_failed", error, profile=question.profile)
            return _failed("the device-state check failed")
        if not isinstance(answer, DeviceAnswer):
            return _failed("the device-state check failed", "not a DeviceAnswer")
        said = answer.detail if isinstance(answer.detail, str) else ""
        said = recordable(said, (challenge,))  # the plug-in may know the token from elsewhere
        if answer.allow is not True:
            return _failed("the device's state does not allow enrollment", said)
        claims = proved(answer.claims, LOOKED_UP_CLAIMS)
        return ChallengeResult((passed("device_state", said),), claims=claims)


def _failed(detail: str, compared: str = "") -> ChallengeResult:
    return refused("device_state", Reason.DEVICE_STATE_FAILED, detail, compared)


def load_device_state(place: str) -> DeviceState:
    """Return the plug-in at module:attribute; raises `SettingsError` if it cannot be used."""
    module, _, attribute = place.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # noqa: BLE001 - an import runs the module's code
        raise SettingsError(
            f"device_state: {place} cannot be loaded: {type(error).__name__}"
        ) from None
    if not isinstance(found, DeviceState) or not _is_async(found):
        raise SettingsError(f"device_state: {place} is not an async function")
    return found


def _is_async(found: object) -> bool:
    """Return whether this is a coroutine function, or an object whose `__call__` is one."""
    if isinstance(found, type):
        return False
    return inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(
        getattr(found, "__call__", None)  # noqa: B004 - asks for the kind of call
    )
