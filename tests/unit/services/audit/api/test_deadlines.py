"""Requests on the admin port that wait: for the database, for an issuer, for a provider."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx
import pytest
from fastapi import FastAPI

from services.audit.api.deadlines import COMMAND, PROVIDER, QUERY, SIGN_IN, Bounded, Kind, kind_of
from services.audit.commands import reload_anchors as reload
from services.audit.commands import reload_ra as ra
from services.audit.commands import retry, revoke
from services.audit.web.provider import TIMEOUT_SECONDS
from shared.limits import ADMIN_SIGNING_IN, ADMIN_UNANSWERED, BODY_SECONDS

REVOKE = "/api/v1/certificates/local/ab/revoke"
ROWS = "/api/v1/enrollments"
OIDC = "/login/oidc"
_QUESTIONS = 3  # metadata, code, keys


@dataclass
class World:
    client: httpx.AsyncClient
    go_on: asyncio.Event
    arrived: asyncio.Semaphore

    async def waiting(self, count: int, method: str, path: str) -> list[asyncio.Task[int]]:
        """So many requests that have reached the application."""
        begun = [asyncio.create_task(self.status(method, path)) for _ in range(count)]
        for _ in begun:
            await self.arrived.acquire()
        return begun

    async def status(self, method: str, path: str) -> int:
        return (await self.client.request(method, path)).status_code


def quick(method: str, path: str) -> Kind:
    """The same kinds, but nobody has patience."""
    return replace(kind_of(method, path), seconds=0.01)


@pytest.fixture(params=[kind_of])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """An application that answers at once, beside two paths that wait."""
    app, go_on, arrived = FastAPI(), asyncio.Event(), asyncio.Semaphore(0)

    @app.post(REVOKE)
    @app.get(OIDC)
    async def wait() -> None:
        arrived.release()
        await go_on.wait()

    @app.post("/login")
    @app.get(ROWS)
    def answer() -> None: ...

    transport = httpx.ASGITransport(Bounded(app, lambda: False, request.param))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield World(client, go_on, arrived)
        go_on.set()


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", ROWS, QUERY), ("GET", "/scep", QUERY), ("POST", "/logout", QUERY),
        ("POST", REVOKE, COMMAND), ("DELETE", "/api/v1/challenges/corp/1", COMMAND),
        ("GET", "/login", SIGN_IN), ("POST", "/login", SIGN_IN),
        ("GET", OIDC, PROVIDER), ("GET", f"{OIDC}/callback", PROVIDER),
    ],
)  # fmt: skip
def test_a_request_is_of_the_kind_of_what_it_waits_for(method: str, path: str, kind: Kind) -> None:
    assert kind_of(method, path) is kind


def test_limits_are_longer_than_what_requests_wait_for() -> None:
    answers = [module._ANSWER_SECONDS for module in (ra, retry, reload, revoke)]
    assert COMMAND.seconds > BODY_SECONDS + max(answers)
    assert PROVIDER.seconds > _QUESTIONS * TIMEOUT_SECONDS + QUERY.seconds


async def test_logins_that_wait_take_no_place_of_others(world: World) -> None:
    waiting = await world.waiting(ADMIN_SIGNING_IN, "GET", OIDC)
    assert await world.status("GET", OIDC) == 503
    assert await world.status("POST", "/login") == 200
    assert await world.status("GET", ROWS) == 200

    world.go_on.set()
    assert set(await asyncio.gather(*waiting)) == {200}
    assert await world.status("GET", OIDC) == 200


@pytest.mark.parametrize("world", [quick], indirect=True)
async def test_orders_that_are_left_behind_take_no_place_of_queries(world: World) -> None:
    waiting = await world.waiting(ADMIN_UNANSWERED, "POST", REVOKE)
    assert set(await asyncio.gather(*waiting)) == {503}
    answer = await world.client.post(REVOKE)
    assert answer.status_code == 503
    assert "not started" in answer.text
    assert world.arrived.locked(), "it has reached the application"
    await world.waiting(1, "GET", OIDC)


@pytest.mark.parametrize("world", [quick], indirect=True)
async def test_places_are_given_back_by_what_was_left_behind(world: World) -> None:
    for each in await world.waiting(ADMIN_SIGNING_IN, "GET", OIDC):
        assert await each == 503
    assert "sign-ins in progress" in (await world.client.get(OIDC)).text
    world.go_on.set()
    while await world.status("GET", OIDC) != 200:
        await asyncio.sleep(0)
