"""The admin application over a database, and a browser for it, without server or network."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from fastapi import FastAPI
from sqlalchemy import Engine

from services.audit.api.dependencies import Dependencies
from services.audit.app import admin_app
from services.audit.roles import Level
from services.audit.settings import PageSettings, Settings
from services.audit.store.api_tokens import add_token
from shared.bus.servers import Servers
from shared.config.sections import Configuration
from shared.log.shards import Epoch
from tests.support.world import OPERATOR, Clock, memory_bus

TOKEN: Final = "a-token-that-is-long-enough-for-it"
PLAIN: Final = "http://192.0.2.80:8090"
TLS: Final = "https://admin.example"
HOUR: Final = 3600.0


@dataclass
class Browser:
    """A client that keeps cookies and does not follow redirects."""

    app: FastAPI
    clock: Clock
    origin: str = PLAIN
    address: str = "192.0.2.1"
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request; an exception that leaves the application fails the test."""
        return asyncio.run(self._ask(method, path, options))

    async def _ask(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(self.address, 50_000))
        async with httpx.AsyncClient(
            transport=transport, base_url=self.origin, cookies=self.cookies
        ) as client:
            found = await client.request(method, path, **options)
            self.cookies = client.cookies
            return found

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.ask("GET", path, **options)

    def sign_in(self, token: str = TOKEN, path: str = "/login", **options: Any) -> httpx.Response:
        return self.ask("POST", path, data={"token": token}, **options)

    @property
    def secret(self) -> str:
        """The session's cookie, whatever it is called."""
        (found,) = self.cookies.jar
        return found.value or ""


def settings(public_url: str | None = None) -> Settings:
    """Settings of an audit service whose bus and database the test provides."""
    return Settings(
        servers=Servers.of("nats://127.0.0.1:4222"),
        nkey_seed="",
        signer=OPERATOR,
        epochs=(Epoch(0, ("0",)),),
        streams=(),
        database_url="",
        batch=1,
        page=PageSettings(public_url, HOUR),
    )


def browser(
    engine: Engine,
    configuration: Callable[[], Configuration],
    *,
    level: Level = Level.ADMIN,
    public_url: str | None = None,
) -> Browser:
    """Return a browser for an application whose only token is TOKEN, with a test's clock."""
    add_token(engine, "desk", level, TOKEN, 0)
    clock = Clock()
    deps = Dependencies(engine, memory_bus(), settings(public_url), configuration, clock)
    return Browser(admin_app(deps, lambda: ""), clock, public_url or PLAIN)
