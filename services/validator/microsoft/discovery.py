"""Where a tenant's Intune services are, as Graph says. The answer is never the same for long."""

from dataclasses import dataclass, field
from typing import Final

from services.validator.microsoft import hints
from services.validator.microsoft.authorized import Call
from services.validator.microsoft.channel import Channel, Request
from services.validator.microsoft.clouds import may_get_token, same_origin
from services.validator.microsoft.failures import unavailable
from services.validator.microsoft.flight import SingleFlight
from services.validator.microsoft.model import MicrosoftUnavailableError, Problem
from services.validator.microsoft.parsing import Endpoints, UnreadableError, read_endpoints
from services.validator.microsoft.tokens import TokenProvider

GRAPH: Final = "Graph"
# The path is exactly that of Microsoft's library: the app is "Microsoft Intune".
_PATH: Final = "v1.0/servicePrincipals/appId=0000000a-0000-0000-c000-000000000000/endpoints"
_LIFETIME: Final = 24 * 3600.0
_PAUSE: Final = 60.0
_MAX_PAGES: Final = 5
_OK: Final = 200


@dataclass
class ServiceDirectory:
    """The URLs of a tenant's services; see `find`."""

    channel: Channel
    tokens: TokenProvider
    discovered_at: float = 0.0
    _services: dict[str, str] | None = field(default=None, init=False)
    _tried_at: float = field(default=0.0, init=False)
    _suspect: bool = field(default=False, init=False)
    _flight: SingleFlight[None] = field(default_factory=SingleFlight, init=False, repr=False)

    @property
    def services(self) -> tuple[str, ...]:
        """Return the names of the services that are known, in lower case."""
        return tuple(self._services or ())

    def suspect(self) -> None:
        """Note that a service may have moved; it is looked up again, at most once a minute."""
        self._suspect = True

    async def find(self, service: str) -> str:
        """Return a service's URL, to which a token may be sent.

        While Graph is down, the last answer is used. Raises `MicrosoftUnavailableError`.
        """
        name = service.lower()
        known = name in (self._services or ())
        if self._due(known=known):
            try:
                await self._flight.do("", self._discover)
            except MicrosoftUnavailableError:
                if not known:
                    raise
        url = (self._services or {}).get(name, "")
        if not url:
            detail = f"the tenant has no {service}"
            raise MicrosoftUnavailableError(Problem.NOT_LICENSED, detail, hints.NOT_LICENSED)
        if not may_get_token(url, self.channel.connection.service_hosts):
            detail = f"{GRAPH} names a host for {service} that must not get a token"
            raise MicrosoftUnavailableError(Problem.PROTOCOL, detail, hints.BAD_HOST)
        return url

    async def close(self) -> None:
        """End requests that are under way."""
        await self._flight.close()

    def _due(self, *, known: bool) -> bool:
        if self._services is None:
            return True
        now = self.channel.around.clock()
        old = now - self.discovered_at >= _LIFETIME
        return (old or self._suspect or not known) and now - self._tried_at >= _PAUSE

    async def _discover(self) -> None:
        clock = self.channel.around.clock
        self._tried_at = clock()
        async with self.channel.measured("discovery"):
            services = await self._pages()
        self._services, self.discovered_at, self._suspect = services, clock(), False

    async def _pages(self) -> dict[str, str]:
        graph, deadline = self.channel.connection.graph_url, self.channel.deadline()
        services: dict[str, str] = {}
        url = f"{graph}{_PATH}"
        for _ in range(_MAX_PAGES):
            page = await self._page(url, deadline)
            services = {**page.services, **services}
            url = page.following
            if not url:
                return services
            if not same_origin(url, graph):
                detail = f"{GRAPH} continues its list at another host"
                raise MicrosoftUnavailableError(Problem.PROTOCOL, detail)
        return services

    async def _page(self, url: str, deadline: float) -> Endpoints:
        async def build(token: str) -> Request:
            headers = {
                "authorization": f"Bearer {token}",
                "client-request-id": self.channel.around.new_id(),
            }
            return Request("GET", url, headers)

        scope = self.channel.connection.graph_scope
        reply = await Call(self.channel, self.tokens, GRAPH, scope, build).make(deadline)
        if reply.status != _OK:
            raise unavailable(GRAPH, reply, hints.NO_SERVICES)
        try:
            return read_endpoints(reply.content)
        except UnreadableError as error:
            detail = f"{GRAPH}: {error}"
            raise MicrosoftUnavailableError(Problem.PROTOCOL, detail, hints.NOT_JSON) from None
