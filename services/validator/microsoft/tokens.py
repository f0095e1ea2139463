"""Bearer tokens of Entra ID (OAuth 2.0 client credentials): cached, and requested once for all.

A token keeps the roles that the app had when it was issued. So callers drop one that Microsoft
answered with 401 or 403, or consent that was given later would show only after an hour.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import urlencode

import structlog

from services.validator.microsoft import hints
from services.validator.microsoft.channel import Channel, Reply, Request
from services.validator.microsoft.credentials import Credential
from services.validator.microsoft.failures import unavailable
from services.validator.microsoft.flight import SingleFlight
from services.validator.microsoft.model import MicrosoftUnavailableError, Problem
from services.validator.microsoft.parsing import (
    Token,
    UnreadableError,
    read_token,
    read_token_error,
)

LOGIN: Final = "Entra ID"
_EARLY: Final = 300.0
_REFUSED_SECONDS: Final = 5.0
_REFUSALS: Final = (400, 401, 403)
_OK: Final = 200
_FORM: Final = "application/x-www-form-urlencoded"


class TokenProvider(Protocol):
    """Where bearer tokens come from."""

    async def token(self, scope: str) -> str:
        """Return a valid token; raises `MicrosoftUnavailableError`."""

    def drop(self, scope: str, token: str) -> None:
        """Forget a token that was not accepted."""


class RefusedError(MicrosoftUnavailableError):
    """Raised if Entra ID refuses a credential; another one may be accepted."""


@dataclass(frozen=True, slots=True)
class _Cached:
    value: str = field(repr=False)
    refresh_at: float
    expires_at: float


@dataclass
class ClientCredentials:
    """Tokens for the app of a connection; see `TokenProvider`.

    With two credentials, the one that was accepted last is used until it is refused.
    """

    channel: Channel
    using: int = 0
    token_at: float = 0.0
    token_error: str = ""
    _cached: dict[tuple[str, str], _Cached] = field(default_factory=dict, init=False, repr=False)
    _refused: dict[str, tuple[float, RefusedError]] = field(default_factory=dict, init=False)
    _flight: SingleFlight[str] = field(default_factory=SingleFlight, init=False, repr=False)

    @property
    def credential(self) -> Credential:
        """Return the credential in use."""
        return self.channel.connection.credentials[self.using]

    async def token(self, scope: str) -> str:
        """See `TokenProvider.token`; a token that ends soon is replaced, if that is possible."""
        found, now = self._find(scope), self.channel.around.clock()
        if found is not None and now < found.refresh_at:
            return found.value
        try:
            return await self._flight.do(scope, lambda: self._renew(scope))
        except MicrosoftUnavailableError:
            kept = found is not None and self._find(scope) is found
            if found is None or not kept or self.channel.around.clock() >= found.expires_at:
                raise
            return found.value

    def drop(self, scope: str, token: str) -> None:
        """See `TokenProvider.drop`; a newer token of the scope is kept."""
        found = self._find(scope)
        if found is not None and found.value == token:
            del self._cached[scope, self.credential.fingerprint]

    async def close(self) -> None:
        """End requests that are under way."""
        await self._flight.close()

    def _find(self, scope: str) -> _Cached | None:
        return self._cached.get((scope, self.credential.fingerprint))

    async def _renew(self, scope: str) -> str:
        until, refused = self._refused.get(scope, (0.0, None))
        if refused is not None and self.channel.around.clock() < until:
            raise RefusedError(refused.kind, refused.detail, refused.hint)
        try:
            found = await self._first_accepted(scope)
        except MicrosoftUnavailableError as error:
            self.token_error = str(error)
            if isinstance(error, RefusedError):
                until = self.channel.around.clock() + _REFUSED_SECONDS
                self._refused[scope] = (until, error)
            raise
        now = self.channel.around.clock()
        self.token_at, self.token_error = now, ""
        early = max(found.expires_in - _EARLY, found.expires_in / 2)
        key = (scope, self.credential.fingerprint)
        self._cached[key] = _Cached(found.value, now + early, now + found.expires_in)
        return found.value

    async def _first_accepted(self, scope: str) -> Token:
        """Request a token with the credential in use, and once with each other one if refused."""
        credentials = self.channel.connection.credentials
        first: RefusedError | None = None
        for step in range(len(credentials)):
            index = (self.using + step) % len(credentials)
            try:
                found = await self.obtain(scope, index)
            except RefusedError as error:
                first = first or error
                continue
            self._use(index)
            return found
        assert first is not None
        raise first

    def _use(self, index: int) -> None:
        if index != self.using:
            self.using = index
            structlog.get_logger().warning(
                "microsoft_credential_changed",
                connection=self.channel.connection.name,
                credential=index + 1,
            )

    async def obtain(self, scope: str, index: int) -> Token:
        """Request a token with one credential; raises `RefusedError` if it is not accepted."""
        channel = self.channel
        async with channel.measured("token"):
            reply = await channel.exchange(
                LOGIN, lambda: self._request(scope, index), channel.deadline(), bearer=False
            )
            if reply.status != _OK:
                raise _error(reply)
            try:
                return read_token(reply.content)
            except UnreadableError as error:
                detail = f"{LOGIN}: {error}"
                raise MicrosoftUnavailableError(Problem.PROTOCOL, detail, hints.NOT_JSON) from None

    async def _request(self, scope: str, index: int) -> Request:
        connection, around = self.channel.connection, self.channel.around
        url = connection.token_url
        fields = {
            "client_id": connection.client_id,
            "scope": scope,
            "grant_type": "client_credentials",
            **connection.credentials[index].proof(
                connection.client_id, url, around.clock(), around.new_id()
            ),
        }
        headers = {"content-type": _FORM, "client-request-id": around.new_id()}
        return Request("POST", url, headers, urlencode(fields).encode("ascii"))


def _error(reply: Reply) -> MicrosoftUnavailableError:
    if reply.status not in _REFUSALS:
        return unavailable(LOGIN, reply, hints.TOKEN_REFUSED)
    error = read_token_error(reply.content)
    hint = hints.hint_of(error.description)
    codes = ", ".join(filter(None, (error.error, hints.number_of(error.description))))
    if error.error == "invalid_client":
        detail = f"{LOGIN} refuses the credentials ({codes})"
        return RefusedError(Problem.CREDENTIALS, detail, hint or hints.CREDENTIALS)
    if not error.error:
        return unavailable(LOGIN, reply, hints.TOKEN_REFUSED)
    detail = f"{LOGIN} gives no token ({codes})"
    return MicrosoftUnavailableError(Problem.CREDENTIALS, detail, hint or hints.TOKEN_REFUSED)
