"""Errors of the page are pages and those of the API problems; a session is good at both."""

import asyncio
from http import HTTPStatus
from itertools import product
from typing import Final

import httpx
import pytest
from sqlalchemy import Engine

from services.audit.roles import Level
from services.audit.store.api_tokens import mark_revoked
from services.audit.store.sessions import csrf_token
from services.audit.store.tables import metadata, sessions
from shared.config.load import SettingsError
from shared.config.sections import Configuration
from tests.support.operator_api import HOUR, TOKEN, Browser, browser

PROBLEM: Final = "application/problem+json"
HTML: Final = "text/html; charset=utf-8"
ORDER: Final = "/api/v1/enrollments/nothing/approve"
PAGE_ERRORS: Final = {
    ("GET", "/nothing"): 404, ("GET", "/scep/enrollments/x"): 404, ("GET", "/scep?tab=x"): 400,
    ("GET", "/scep?tab=activity&cursor=x"): 400, ("GET", "/scep?search=%00"): 400,
    ("POST", "/scep"): 405, ("GET", "/logout"): 405, ("DELETE", "/login"): 405,
    ("GET", "/scep"): 503, ("POST", "/logout"): 403, ("GET", "/static/x/y"): 404,
}  # fmt: skip
API_ERRORS: Final = {
    ("GET", "/api/v1/nothing"): 404, ("GET", "/api/v1/enrollments/x"): 404, ("GET", "/api/"): 404,
    ("GET", "/api/v1/enrollments?limit=x"): 400, ("GET", "/api/v1/enrollments?cursor=x"): 400,
    ("PUT", "/api/v1/enrollments"): 405, ("GET", "/api/v1/admin/scep/profiles"): 503,
    ("POST", ORDER): 403,
}  # fmt: skip


def broken() -> Configuration:
    """What an order or a page with profiles asks for."""
    raise SettingsError("profiles.demo.ra_cert_path: missing")


@pytest.fixture
def deps(engine: Engine) -> Browser:
    """An admin who is signed in."""
    found = browser(engine, broken)
    assert found.sign_in().status_code == 303
    return found


# Errors


def test_an_error_of_the_page_is_a_page(deps: Browser, subtests: pytest.Subtests) -> None:
    for (method, path), status in PAGE_ERRORS.items():
        with subtests.test(path, method=method):
            found = deps.ask(method, path)
            assert (found.status_code, found.headers["content-type"]) == (status, HTML)
            assert f"<h1>{HTTPStatus(status).phrase}</h1>" in found.text


def test_an_error_of_the_api_is_a_problem(deps: Browser, subtests: pytest.Subtests) -> None:
    for (method, path), status in API_ERRORS.items():
        with subtests.test(path, method=method):
            found = deps.ask(method, path)
            assert (found.status_code, found.headers["content-type"]) == (status, PROBLEM)
            assert found.json()["status"] == status


@pytest.mark.parametrize("path", ["/scep/held", "/api/v1/enrollments"])
def test_a_database_that_fails_is_told_on_both_sides(
    deps: Browser, engine: Engine, path: str
) -> None:
    metadata.tables["enrollments"].drop(engine)
    found = deps.get(path)

    assert (found.status_code, found.headers["retry-after"]) == (503, "5")
    assert "the database is unavailable" in found.text


# A session at the API


def test_a_session_reads_at_the_api(deps: Browser) -> None:
    assert deps.get("/api/v1/enrollments").json() == {"enrollments": [], "next": None}


def test_an_order_of_a_session_without_its_csrf_token_is_refused(
    deps: Browser, subtests: pytest.Subtests
) -> None:
    commands = (("POST", ORDER), ("DELETE", "/api/v1/challenges/corp/x"))
    shown = (None, "", "wrong", csrf_token("another"), csrf_token(""))
    for (method, path), token in product(commands, shown):
        with subtests.test(method, token=token):
            headers = {} if token is None else {"x-csrf-token": token}
            found = deps.ask(method, path, headers=headers)
            assert (found.status_code, found.headers["content-type"]) == (403, PROBLEM)


def test_an_order_of_a_session_with_its_csrf_token_is_heard(deps: Browser) -> None:
    headers = {"x-csrf-token": csrf_token(deps.secret)}
    found = deps.ask("POST", ORDER, json={}, headers=headers)

    assert found.status_code == 503, "it came as far as the configuration"


@pytest.mark.parametrize("level", [Level.VIEWER, Level.OPERATOR])
def test_a_session_may_do_what_its_token_may(engine: Engine, level: Level) -> None:
    found = browser(engine, broken, level=level)
    found.sign_in()
    headers = {"x-csrf-token": csrf_token(found.secret)}
    answer = found.ask("POST", ORDER, json={}, headers=headers)

    assert found.get("/api/v1/enrollments").status_code == 200
    assert answer.status_code == (403 if level is Level.VIEWER else 503)


def test_an_order_with_a_bearer_token_wants_no_csrf_token(deps: Browser) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}

    assert deps.ask("POST", ORDER, json={}, headers=headers).status_code == 503


def test_a_bad_bearer_token_is_not_made_good_by_a_session(deps: Browser) -> None:
    found = deps.get("/api/v1/enrollments", headers={"authorization": "Bearer wrong"})

    assert found.status_code == 401


def test_a_cookie_that_nobody_gave_is_none(deps: Browser, subtests: pytest.Subtests) -> None:
    deps.cookies.clear()
    for cookie in ("", "x", "\u00e9", "a=b", '"\\303\\251"', "x" * 10_000):
        for path, status in (("/api/v1/enrollments", 401), ("/scep/held", 303)):
            with subtests.test(path, cookie=cookie[:20]):
                found = deps.get(path, headers={"cookie": f"scepstream={cookie}".encode()})
                assert found.status_code == status


@pytest.mark.parametrize("end", ["time", "token"])
def test_a_session_that_has_ended_is_good_for_nothing(
    deps: Browser, engine: Engine, end: str
) -> None:
    if end == "time":
        deps.clock.seconds += HOUR
    else:
        mark_revoked(engine, "desk", 1)

    assert deps.get("/api/v1/enrollments").status_code == 401
    assert deps.get("/scep/held").status_code == 303


def test_the_digest_of_a_session_is_no_cookie(deps: Browser, engine: Engine) -> None:
    with engine.connect() as connection:
        digest = connection.execute(sessions.select()).one().sha256
    deps.cookies = httpx.Cookies({"scepstream": digest})

    assert deps.get("/api/v1/enrollments").status_code == 401


# Many at once


def test_failures_at_once_are_counted_as_those_one_after_another(deps: Browser) -> None:
    """Whoever sends them all before the first is answered has no more tries than others."""

    async def tries() -> list[int]:
        transport = httpx.ASGITransport(deps.app, client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            sent = (client.post("/login", data={"token": f"wrong {n}"}) for n in range(40))
            return [found.status_code for found in await asyncio.gather(*sent)]

    assert asyncio.run(tries()).count(401) == 10
