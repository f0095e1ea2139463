"""Tries a connection step by step, for `scepstream doctor intune`: each step says what to do."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.validator.microsoft import hints
from services.validator.microsoft.client import REVOCATION_SERVICE, SCEP_SERVICE, Intune
from services.validator.microsoft.model import MicrosoftUnavailableError
from services.validator.microsoft.parsing import guid, roles_of


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one step; `hint` says what to do if it failed, or "" ."""

    step: str
    ok: bool
    detail: str
    hint: str = ""


async def examine(intune: Intune, device: str = "") -> AsyncIterator[Finding]:
    """Yield what was found: tokens, services and, if `device` is an Intune ID, that device.

    Nothing is changed at Microsoft.
    """
    connection = intune.connection
    for index, credential in enumerate(connection.credentials):
        for name, scope in (
            ("Graph", connection.graph_scope),
            ("Intune", connection.intune_scope),
        ):
            step = f"token for {name} with {credential.kind} {index + 1}"
            yield await _token(intune, step, scope, index)
    for service in (SCEP_SERVICE, REVOCATION_SERVICE):
        if service == SCEP_SERVICE or connection.revocations:
            yield await _service(intune, service)
    if device:
        yield await _device(intune, device)


async def _token(intune: Intune, step: str, scope: str, index: int) -> Finding:
    try:
        found = await intune.tokens.obtain(scope, index)
    except MicrosoftUnavailableError as error:
        return Finding(step, False, error.detail, error.hint)
    roles = ", ".join(roles_of(found.value))
    if roles:
        return Finding(step, True, f"valid for {found.expires_in:.0f} s; roles: {roles}")
    without = hints.NO_INTUNE if scope == intune.connection.intune_scope else hints.NO_SERVICES
    detail = f"valid for {found.expires_in:.0f} s; it shows no roles"
    return Finding(step, True, detail, without)


async def _service(intune: Intune, service: str) -> Finding:
    try:
        url = await intune.directory.find(service)
    except MicrosoftUnavailableError as error:
        return Finding(service, False, error.detail, error.hint)
    return Finding(service, True, url)


async def _device(intune: Intune, device: str) -> Finding:
    step = f"device {device}"
    if not guid(device):
        return Finding(step, False, "not a GUID", "name the device by its Intune device ID")
    try:
        found = await intune.managed_device(device)
    except MicrosoftUnavailableError as error:
        return Finding(step, False, error.detail, error.hint)
    if found is None:
        hint = "name it by its Intune device ID, not by its Entra ID"
        return Finding(step, False, "Intune does not know it", hint)
    return Finding(step, True, f"compliance: {found.compliance}; {found.os or 'unknown system'}")
