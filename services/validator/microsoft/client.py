"""The client of Microsoft's APIs for one tenant: SCEP validation, revocation, devices, accounts.

Theory of operation. A call has a budget. In each attempt it gets a token (`tokens`), for Intune's
services the URL (`discovery`), and sends one request (`channel`); `retrying` decides what comes
next. Everything is kept for each connection: tokens, URLs, breakers, limits. So a tenant whose
secret expired, or that is throttled, does not affect others.

Only an answer "Success" of Intune admits a device. Everything else refuses it, and a call without
a usable answer raises `MicrosoftUnavailableError`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from services.validator.microsoft import bodies, hints, parsing
from services.validator.microsoft.authorized import Call
from services.validator.microsoft.channel import Channel, Reply, Request, Surroundings
from services.validator.microsoft.connection import TenantConnection
from services.validator.microsoft.discovery import GRAPH, ServiceDirectory
from services.validator.microsoft.failures import unavailable
from services.validator.microsoft.model import (
    MAX_REVOCATIONS,
    Answer,
    EntraDevice,
    FailureNotice,
    ManagedDevice,
    MicrosoftUnavailableError,
    Problem,
    RevocationAsked,
    RevocationResult,
    SuccessNotice,
    TenantHealth,
)
from services.validator.microsoft.tokens import ClientCredentials

SCEP_SERVICE: Final = "ScepRequestValidationFEService"
REVOCATION_SERVICE: Final = "PkiConnectorFEService"
_OK: Final = 200
_NOT_FOUND: Final = 404
_MAX_ACCOUNT: Final = 255
_MANAGED: Final = (
    "id,azureADDeviceId,complianceState,complianceGracePeriodExpirationDateTime,"
    "enrolledDateTime,lastSyncDateTime,userPrincipalName,operatingSystem"
)
_ENTRA: Final = "id,deviceId,accountEnabled,isCompliant,isManaged,complianceExpirationDateTime"
_SID: Final = "id,onPremisesSecurityIdentifier"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Action:
    """An operation of one of Intune's services."""

    operation: str
    service: str
    path: str
    version: str
    body: Mapping[str, Any] = field(repr=False)


class Intune:
    """Asks Microsoft about one tenant; see the module. `around` is for tests."""

    def __init__(self, connection: TenantConnection, around: Surroundings | None = None) -> None:
        self.connection = connection
        self.channel = Channel(connection, around or Surroundings())
        self.tokens = ClientCredentials(self.channel)
        self.directory = ServiceDirectory(self.channel, self.tokens)

    async def close(self) -> None:
        """Close the connections and end requests that are under way."""
        await self.directory.close()
        await self.tokens.close()
        await self.channel.close()

    async def validate(
        self, transaction_id: str, csr: bytes, deadline: float | None = None
    ) -> Answer:
        """Ask Intune whether a CSR (DER, as received) and the challenge in it are good.

        `deadline` is in Unix seconds, as in all calls; the budget applies in any case.
        """
        body = bodies.validate_body(transaction_id, csr, self.connection.provider_name)
        return await self._scep("validate", "validateRequest", body, deadline)

    async def tell_success(self, notice: SuccessNotice, deadline: float | None = None) -> Answer:
        """Tell Intune that a certificate was issued; any answer but "Success" is a failure."""
        connection = self.connection
        body = bodies.success_body(notice, connection.provider_name, connection.ca_configuration)
        return await self._scep("success_notification", "successNotification", body, deadline)

    async def tell_failure(self, notice: FailureNotice, deadline: float | None = None) -> Answer:
        """Tell Intune that a validated request got no certificate."""
        body = bodies.failure_body(notice, self.connection.provider_name)
        return await self._scep("failure_notification", "failureNotification", body, deadline)

    async def download_revocations(
        self, maximum: int = MAX_REVOCATIONS, deadline: float | None = None
    ) -> tuple[RevocationAsked, ...]:
        """Return Intune's requests to revoke certificates, at most 500.

        The same requests come again until results are uploaded.
        """
        maximum = min(max(maximum, 1), MAX_REVOCATIONS)
        body = bodies.download_body(maximum)
        action = self._revocation("download_revocations", "downloadRevocationRequests", body)
        reply, _ = await self._act(action, deadline, parsing.read_revocations)
        return reply

    async def upload_results(
        self, results: Sequence[RevocationResult], deadline: float | None = None
    ) -> None:
        """Report what became of revocation requests; raises if Intune does not confirm it."""
        body = bodies.upload_body(results)
        action = self._revocation("upload_results", "uploadRevocationResults", body)
        await self._act(action, deadline, _confirmed)

    async def managed_device(
        self, intune_id: str, deadline: float | None = None
    ) -> ManagedDevice | None:
        """Return a device by its Intune ID, None if it is unknown."""
        device = parsing.guid(intune_id)
        path = f"deviceManagement/managedDevices/{device}?$select={_MANAGED}"
        read = parsing.read_managed_device
        permission = hints.NO_MANAGED_DEVICES
        return await self._graph("managed_device", path, read, permission, deadline, known=device)

    async def managed_device_of(
        self, entra_id: str, deadline: float | None = None
    ) -> ManagedDevice | None:
        """Return a device of Intune by its Entra ID, None if it is unknown."""
        device = parsing.guid(entra_id)
        wanted = f"$filter=azureADDeviceId%20eq%20'{device}'&$select={_MANAGED}"
        path = f"deviceManagement/managedDevices?{wanted}"
        read = parsing.read_managed_devices
        permission = hints.NO_MANAGED_DEVICES
        return await self._graph("managed_device", path, read, permission, deadline, known=device)

    async def entra_device(
        self, entra_id: str, deadline: float | None = None
    ) -> EntraDevice | None:
        """Return a device of Entra ID, None if it is unknown."""
        device = parsing.guid(entra_id)
        path = f"devices(deviceId='{device}')?$select={_ENTRA}"
        read = parsing.read_entra_device
        return await self._graph(
            "entra_device", path, read, hints.NO_DEVICES, deadline, known=device
        )

    async def user_sid(self, upn_or_id: str, deadline: float | None = None) -> str | None:
        """Return the SID in Active Directory of a user, None without a synchronized account."""
        user = upn_or_id if 0 < len(upn_or_id) <= _MAX_ACCOUNT and upn_or_id.isprintable() else ""
        path = f"users/{quote(user, safe='@')}?$select={_SID}"
        read = parsing.read_account_sid
        known = user if user not in (".", "..") else ""
        return await self._graph("user_sid", path, read, hints.NO_USERS, deadline, known=known)

    async def device_sid(self, entra_id: str, deadline: float | None = None) -> str | None:
        """Return the SID in Active Directory of a device, None without a synchronized account."""
        device = parsing.guid(entra_id)
        path = f"devices(deviceId='{device}')?$select={_SID}"
        read = parsing.read_account_sid
        return await self._graph("device_sid", path, read, hints.NO_DEVICES, deadline, known=device)

    def health(self) -> TenantHealth:
        """Return how the connection does, for operators."""
        channel, tokens = self.channel, self.tokens
        now = channel.around.clock()
        breakers = [each.open_until for each in channel.breakers.values() if each.open]
        throttled = [until for until in channel.throttled.values() if until > now]
        return TenantHealth(
            credential_kind=tokens.credential.kind,
            credential=tokens.using + 1,
            credential_not_after=tokens.credential.not_after,
            token_at=tokens.token_at,
            token_error=tokens.token_error,
            discovered_at=self.directory.discovered_at,
            last_ok=channel.record.last_ok,
            last_error=channel.record.last_error,
            breaker_open_until=max(breakers, default=0.0),
            throttled_until=max(throttled, default=0.0),
            calls=dict(channel.record.calls),
        )

    async def _scep(
        self, operation: str, path: str, body: Mapping[str, Any], deadline: float | None
    ) -> Answer:
        version = self.connection.scep_api_version
        action = _Action(operation, SCEP_SERVICE, f"ScepActions/{path}", version, body)
        answer, activity = await self._act(action, deadline, parsing.read_answer)
        return replace(answer, activity_id=activity)

    def _revocation(self, operation: str, path: str, body: Mapping[str, Any]) -> _Action:
        version = self.connection.revocation_api_version
        full = f"CertificateAuthorityRequests/{path}"
        return _Action(operation, REVOCATION_SERVICE, full, version, body)

    async def _act(
        self, action: _Action, deadline: float | None, read: Callable[[bytes], _T]
    ) -> tuple[_T, str]:
        """Carry out an action; return what `read` makes of the answer, and the activity's ID."""
        content = msgspec.json.encode(action.body)
        activity = ""

        async def build(token: str) -> Request:
            nonlocal activity
            url = await self.directory.find(action.service)
            activity = self.channel.around.new_id()
            name = self.connection.provider_name
            headers = {
                "authorization": f"Bearer {token}",
                "content-type": "application/json",
                "client-request-id": activity,
                "api-version": action.version,
                "UserAgent": name,  # Microsoft's Java library sends it beside User-Agent
            }
            return Request("POST", f"{url}/{action.path}", headers, content)

        call = Call(
            self.channel, self.tokens, action.service, self.connection.intune_scope, build,
            relocatable=True, suspect=self.directory.suspect,
        )  # fmt: skip
        async with self.channel.measured(action.operation) as result:
            reply = await call.make(self.channel.deadline(deadline))
            if reply.status != _OK:
                raise unavailable(action.service, reply, hints.NO_INTUNE)
            found = _read(action.service, reply, read)
            if isinstance(found, Answer) and not found.accepted:
                result.append("refused")
            return found, activity

    async def _graph(
        self,
        operation: str,
        path: str,
        read: Callable[[bytes], _T | None],
        permission: str,
        deadline: float | None,
        *,
        known: str,
    ) -> _T | None:
        """Read an object of Graph; None if it does not exist, or `known` (its name) is empty."""
        if not known:
            return None

        async def build(token: str) -> Request:
            headers = {
                "authorization": f"Bearer {token}",
                "client-request-id": self.channel.around.new_id(),
            }
            return Request("GET", f"{self.connection.graph_url}v1.0/{path}", headers)

        call = Call(self.channel, self.tokens, GRAPH, self.connection.graph_scope, build)
        async with self.channel.measured(operation):
            reply = await call.make(self.channel.deadline(deadline))
            if reply.status == _NOT_FOUND:
                return None
            if reply.status != _OK:
                raise unavailable(GRAPH, reply, permission)
            return _read(GRAPH, reply, read)


def _read(service: str, reply: Reply, read: Callable[[bytes], _T]) -> _T:
    try:
        return read(reply.content)
    except parsing.UnreadableError as error:
        detail = f"{service}: {error}"
        raise MicrosoftUnavailableError(
            Problem.PROTOCOL, detail, hints.NOT_JSON, sent=True
        ) from None


def _confirmed(content: bytes) -> None:
    if not parsing.read_uploaded(content):
        raise parsing.UnreadableError("Intune did not confirm the results")
