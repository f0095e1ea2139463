"""What operators can do about Microsoft's errors. For people only: no number decides anything.

Microsoft may change or reuse AADSTS numbers, so a wrong hint must be harmless. Pure.
"""

import re
from typing import Final

_AADSTS: Final = re.compile(r"AADSTS([0-9]{4,9})\b")
AADSTS: Final = {
    7000215: "the client secret is wrong: copy the secret's value, not its ID",
    7000222: "the client secret has expired: create a new one and add it to client_secret_path",
    700027: "the app does not know this certificate: upload it under Certificates & secrets",
    700016: "the app is not in this tenant: check client_id and tenant_id, or grant admin consent",
    7000229: "the app has no service principal in this tenant: grant admin consent",
    7000112: "the app is disabled in Entra ID: enable it",
    700030: "the certificate is invalid for Entra ID: check its dates and upload it again",
    700024: "the assertion's time is wrong: check this machine's clock and the certificate's dates",
    90002: "the tenant is unknown: check tenant_id and cloud",
    900023: "the tenant is unknown: check tenant_id",
    500011: "the resource is unknown in this tenant: check resource_url, cloud and licence",
    53003: "a Conditional Access policy blocks the app: exclude it",
}
CREDENTIALS: Final = "check client_id, tenant_id, and the secret or certificate with its expiry"
TOKEN_REFUSED: Final = "check cloud, tenant_id and resource_url"  # noqa: S105 - a hint
NO_SERVICES: Final = (
    "grant the app Microsoft Graph's application permission Application.Read.All, "
    "with admin consent"
)
NOT_LICENSED: Final = (
    "Intune does not offer this service to the tenant: check its Intune licence, and that the app "
    "has Intune's application permission scep_challenge_provider, with admin consent"
)
NO_INTUNE: Final = (
    "grant the app Intune's application permission scep_challenge_provider, with admin consent"
)
NO_MANAGED_DEVICES: Final = (
    "grant the app Microsoft Graph's application permission "
    "DeviceManagementManagedDevices.Read.All, with admin consent"
)
NO_DEVICES: Final = (
    "grant the app Microsoft Graph's application permission Device.Read.All, with admin consent"
)
NO_USERS: Final = (
    "grant the app Microsoft Graph's application permission User.Read.All, with admin consent"
)
BAD_HOST: Final = "if it is Microsoft's, add its domain to service_hosts"
REDIRECT: Final = "redirects are never followed: check login_url, graph_url and the network"
NOT_JSON: Final = "check whether a proxy answers instead of Microsoft"
UNREACHABLE: Final = "check DNS, the firewall and ca_path"


def hint_of(description: str) -> str:
    """Return what to do about an error of Entra ID, by the number in its description; else ""."""
    found = number_of(description)
    return AADSTS.get(int(found.removeprefix("AADSTS")), "") if found else ""


def number_of(description: str) -> str:
    """Return the number in an error of Entra ID, for operators to look up; else ""."""
    found = _AADSTS.search(description[:4096])
    return found[0] if found else ""
