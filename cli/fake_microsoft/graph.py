"""Microsoft Graph: the list of services, devices and users."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cli.fake_microsoft.exchange import Answer, Call, bearer, graph_error
from cli.fake_microsoft.judge import GUID
from cli.fake_microsoft.model import REVOCATION_SERVICE, SCEP_SERVICE, App, Device, Token, Unit
from cli.fake_microsoft.world import World

SCEP_PATH: Final = "RACerts/StatelessScepRequestValidationService"
REVOCATION_PATH: Final = "RACerts/StatelessPkiConnectorService"
_FILTER: Final = re.compile(r"azureADDeviceId eq '((?:[^']|'')*)'")
_ID: Final = "onPremisesSecurityIdentifier"


def endpoints(world: World, call: Call) -> Answer:
    """List the tenant's services; two pages if the tenant's list is paged."""
    app = _authorized(world, call, "Application.Read.All")
    if not call.correlation_id:
        raise graph_error(world, call, 400, "BadRequest", "client-request-id is not a GUID")
    every = service_list(app.unit, call.base)
    context = f"{call.base}v1.0/$metadata#servicePrincipals('{app.id}')/endpoints"
    if not app.unit.paged:
        return Answer(200, {"@odata.context": context, "value": every})
    number = int(call.query.get("$skiptoken", "0") or 0) if _is_page(call) else 0
    body: dict[str, Any] = {"@odata.context": context, "value": every[number : number + 1]}
    if number + 1 < len(every):
        path = "v1.0/servicePrincipals/appId=0000000a-0000-0000-c000-000000000000/endpoints"
        following = f"{call.base}{path}?$skiptoken={number + 1}"
        body["@odata.nextLink"] = app.unit.next_link or following
    return Answer(200, body)


def _is_page(call: Call) -> bool:
    return call.query.get("$skiptoken", "").isdecimal() and len(call.query["$skiptoken"]) == 1


def service_list(unit: Unit, base: str) -> list[dict[str, Any]]:
    """Return the entries of a tenant's list; one of them is of no interest to a CA."""
    slash = "/" if unit.trailing_slash else ""
    uris: Mapping[str, str | None] = {
        "UserDirectoryService": f"{base}UserDirectory/{unit.id}",
        SCEP_SERVICE: f"{base}{SCEP_PATH}/{unit.id}{slash}",
        REVOCATION_SERVICE: f"{base}{REVOCATION_PATH}/{unit.id}{slash}",
        **unit.uris,
    }
    name = "serviceName" if unit.service_name else "providerName"
    return [
        {
            "id": f"{unit.id[:-1]}{number}", "capability": provider, "providerId": unit.id,
            name: provider, "providerResourceId": None, "uri": uri,
        }
        for number, (provider, uri) in enumerate(uris.items())
        if uri is not None
    ]  # fmt: skip


def managed_device(world: World, call: Call) -> Answer:
    """Return a device by its Intune ID."""
    app = _authorized(world, call, "DeviceManagementManagedDevices.Read.All")
    device = world.devices.get(call.path["id"].lower())
    if not GUID.fullmatch(call.path["id"]):
        raise graph_error(world, call, 400, "BadRequest", "the ID is not a GUID")
    if device is None or device.tenant != app.name or not device.managed:
        raise graph_error(world, call, 404, "ResourceNotFound", "the device is unknown")
    context = f"{call.base}v1.0/$metadata#deviceManagement/managedDevices/$entity"
    return Answer(200, {"@odata.context": context} | _selected(call, _managed(device)))


def managed_devices(world: World, call: Call) -> Answer:
    """Return the devices with an Entra ID."""
    app = _authorized(world, call, "DeviceManagementManagedDevices.Read.All")
    found = _FILTER.fullmatch(call.query.get("$filter", ""))
    if found is None:
        raise graph_error(world, call, 400, "BadRequest", "the filter is not supported")
    wanted = found[1].replace("''", "'").lower()
    value = [
        _selected(call, _managed(each))
        for each in world.devices.values()
        if each.tenant == app.name and each.managed and each.entra_id.lower() == wanted
    ]
    context = f"{call.base}v1.0/$metadata#deviceManagement/managedDevices"
    return Answer(200, {"@odata.context": context, "@odata.count": len(value), "value": value})


def device(world: World, call: Call) -> Answer:
    """Return a device of Entra ID by its device ID."""
    app = _authorized(world, call, "Device.Read.All")
    wanted = call.path["id"].lower()
    for each in world.devices.values():
        if each.tenant == app.name and each.registered and each.entra_id.lower() == wanted:
            context = f"{call.base}v1.0/$metadata#devices/$entity"
            return Answer(200, {"@odata.context": context} | _selected(call, _registered(each)))
    raise graph_error(world, call, 404, "Request_ResourceNotFound", "the device is unknown")


def user(world: World, call: Call) -> Answer:
    """Return a user by ID or user principal name."""
    app = _authorized(world, call, "User.Read.All")
    wanted = call.path["id"].lower()
    for each in world.users.values():
        if each.tenant == app.name and wanted in (each.id.lower(), each.upn.lower()):
            members = {"id": each.id, "userPrincipalName": each.upn, _ID: each.sid}
            context = f"{call.base}v1.0/$metadata#users/$entity"
            return Answer(200, {"@odata.context": context} | _selected(call, members))
    raise graph_error(world, call, 404, "Request_ResourceNotFound", "the user is unknown")


def _authorized(world: World, call: Call, role: str) -> App:
    """Return the tenant of a request whose token has a role."""
    token: Token | None = bearer(world, call)
    if token is None or token.audience != call.base:
        message = "Access token is missing, expired or for another resource."
        raise graph_error(world, call, 401, "InvalidAuthenticationToken", message)
    if role not in token.roles:
        message = "Insufficient privileges to complete the operation."
        raise graph_error(world, call, 403, "Authorization_RequestDenied", message)
    return world.app(token.tenant)


def _selected(call: Call, members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that $select names, or all."""
    names: Sequence[str] = [name for name in call.query.get("$select", "").split(",") if name]
    return {name: members[name] for name in names or members if name in members}


def _managed(each: Device) -> dict[str, Any]:
    return {
        "id": each.id,
        "azureADDeviceId": each.entra_id,
        "complianceState": each.compliance_state,
        "complianceGracePeriodExpirationDateTime": each.grace_until,
        "enrolledDateTime": each.enrolled,
        "lastSyncDateTime": each.last_sync,
        "userPrincipalName": each.user,
        "operatingSystem": each.operating_system,
        "managementState": each.management_state,
    }


def _registered(each: Device) -> dict[str, Any]:
    return {
        "id": each.id,
        "deviceId": each.entra_id,
        "accountEnabled": each.account_enabled,
        "isCompliant": each.is_compliant,
        "isManaged": each.is_managed,
        "complianceExpirationDateTime": each.compliance_expiration,
        "operatingSystem": each.operating_system,
        _ID: each.sid,
    }
