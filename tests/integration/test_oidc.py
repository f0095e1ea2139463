"""Signing in by way of a real OpenID Connect provider, and what does not hold of one."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import Engine

from services.audit.api.dependencies import Dependencies
from services.audit.app import admin_app
from services.audit.roles import Level
from services.audit.settings import Oidc, PageSettings, Settings
from services.audit.store.engine import migrate, open_engine
from services.audit.web import provider
from shared.config.load import SettingsError
from tests.support.operator_api import Browser
from tests.support.system import wait_until
from tests.support.world import OPERATOR, memory_bus

PAGE: Final = "https://admin.example"
CLAIMS: Final[tuple[dict[str, Any], ...]] = (
    {"sub": "1", "preferred_username": "viewer-1", "roles": ["helpdesk", "other"]},
    {"sub": "2", "preferred_username": "operator-1", "roles": ["helpdesk", "pki"]},
    {"sub": "3", "preferred_username": "nobody", "roles": ["other"]},
    {"sub": "4", "preferred_username": "without"},
    {"sub": "5", "roles": "pki", "email": "x@example"},
)


class RealClock:
    """The provider's tokens are of now."""

    def __call__(self) -> float:
        return time.time()


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """The URL of a provider that lets anybody in, with these claims."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    users = [option for each in CLAIMS for option in ("--user-claims", json.dumps(each))]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "-p", str(port), *users],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/jwks", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, 30, "the provider")
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    found = open_engine(f"sqlite:///{tmp_path / 'audit.db'}")
    migrate(found)
    yield found
    found.dispose()


def oidc(issuer: str, secret: str | None = "a secret") -> Oidc:
    levels = {"helpdesk": Level.VIEWER, "pki": Level.OPERATOR}
    redirect = f"{PAGE}/login/oidc/callback"
    return Oidc(issuer, "scepstream", secret, redirect, "roles", levels)


def browser(engine: Engine, found: Oidc) -> Browser:
    def broken() -> Any:
        raise SettingsError("nothing to see")

    settings = Settings("", "", OPERATOR, ("0",), (), "", 1, PageSettings(PAGE, 3600.0, found))
    deps = Dependencies(engine, memory_bus(), settings, broken, RealClock())
    return Browser(admin_app(deps, lambda: ""), RealClock(), PAGE)  # type: ignore[arg-type]


def to_provider(visitor: Browser, following: str = "/scep") -> str:
    """Where the login leads."""
    begun = visitor.get("/login/oidc", params={"next": following})
    assert begun.status_code == 303
    return begun.headers["location"]


def consent(location: str, sub: str) -> str:
    """What the provider sends the browser back with, path and query."""
    back = httpx.post(location, data={"sub": sub}, trust_env=False)
    assert back.status_code in (302, 303), back.text
    parts = urlsplit(back.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}" == PAGE
    return f"{parts.path}?{parts.query}"


def test_a_user_with_a_role_gets_a_session_of_its_level(engine: Engine, issuer: str) -> None:
    visitor = browser(engine, oidc(issuer))
    location = to_provider(visitor, "/scep?tab=activity")
    asked = parse_qs(urlsplit(location).query)
    back = visitor.get(consent(location, "2"))

    assert asked["code_challenge_method"] == ["S256"]
    assert (back.status_code, back.headers["location"]) == (303, "/scep?tab=activity")
    assert visitor.get("/api/v1/enrollments").status_code == 200
    refused = visitor.ask("POST", "/api/v1/enrollments/x/approve", json={})
    assert refused.status_code == 403  # signed in, but without the page's own token


def test_a_viewer_by_role_gives_no_orders(engine: Engine, issuer: str) -> None:
    visitor = browser(engine, oidc(issuer))
    assert visitor.get(consent(to_provider(visitor), "1")).status_code == 303
    csrf = visitor.get("/scep/held").text
    assert visitor.get("/api/v1/certificates").status_code == 200
    assert "configuration cannot be read" in csrf  # the page is there, its profiles are not
    deps = visitor.app.state.deps
    plain = replace(deps.settings, page=PageSettings(PAGE, 3600.0))
    visitor.app.state.deps = replace(deps, settings=plain)
    assert visitor.get("/api/v1/certificates").status_code == 401  # its session ends with OIDC


@pytest.mark.parametrize("sub", ["3", "4"])
def test_who_has_no_role_here_is_told_and_gets_nothing(
    engine: Engine, issuer: str, sub: str
) -> None:
    visitor = browser(engine, oidc(issuer))
    back = visitor.get(consent(to_provider(visitor), sub))

    assert back.status_code == 403
    assert "has no role with access to this page" in back.text
    assert visitor.get("/api/v1/enrollments").status_code == 401


def test_who_is_refused_by_the_provider_is_told(engine: Engine, issuer: str) -> None:
    visitor = browser(engine, oidc(issuer))
    state = parse_qs(urlsplit(to_provider(visitor)).query)["state"][0]
    back = visitor.get("/login/oidc/callback", params={"error": "access_denied", "state": state})

    assert back.status_code == 403
    assert "denied the sign-in" in back.text
    assert visitor.get("/api/v1/enrollments").status_code == 401


@pytest.mark.parametrize("following", ["/scep?search=\u65e5\u672c", f"/scep?search={'x' * 5000}"])
def test_whatever_was_looked_for_a_login_can_begin(
    engine: Engine, issuer: str, following: str
) -> None:
    visitor = browser(engine, oidc(issuer))
    back = visitor.get(consent(to_provider(visitor, following), "2"))

    assert back.status_code == 303
    assert back.headers["location"].startswith("/scep")


def test_a_login_that_another_browser_began_is_none(engine: Engine, issuer: str) -> None:
    victim, attacker = browser(engine, oidc(issuer)), browser(engine, oidc(issuer))
    to_provider(victim)
    stolen = consent(to_provider(attacker), "2")

    assert victim.get(stolen).status_code == 400
    assert browser(engine, oidc(issuer)).get(stolen).status_code == 400


def test_a_code_is_good_once(engine: Engine, issuer: str) -> None:
    visitor = browser(engine, oidc(issuer))
    location = to_provider(visitor)
    cookies = httpx.Cookies(visitor.cookies)
    back = consent(location, "2")
    assert visitor.get(back).status_code == 303
    visitor.cookies = cookies

    again = visitor.get(back)
    assert again.status_code == 403
    assert "start again" in again.text


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1/x"])
def test_a_provider_that_is_away_is_said_so(engine: Engine, url: str) -> None:
    found = browser(engine, oidc(url)).get("/login/oidc")

    assert found.status_code == 502
    assert "is unavailable" in found.text


def test_metadata_of_another_issuer_is_not_taken(engine: Engine, issuer: str) -> None:
    wrong = issuer.replace("127.0.0.1", "localhost") + "/"
    assert browser(engine, oidc(wrong)).get("/login/oidc").status_code == 502


def test_without_a_provider_there_is_no_such_login(engine: Engine, issuer: str) -> None:
    visitor = browser(engine, oidc(issuer))
    assert "/login/oidc" in visitor.get("/login").text
    deps = visitor.app.state.deps
    plain = replace(deps.settings, page=PageSettings(PAGE, 3600.0))
    visitor.app.state.deps = replace(deps, settings=plain)

    assert "/login/oidc" not in visitor.get("/login").text
    assert visitor.get("/login/oidc").status_code == 404
    assert visitor.get("/login/oidc/callback?state=x&code=y").status_code == 404


# What an ID token must be

KEY: Final = RSAKey.generate_key(2048, {"kid": "1"})
OTHER: Final = RSAKey.generate_key(2048, {"kid": "1"})
NOW: Final = 1_800_000_000
GOOD: Final = {
    "iss": "https://login.example", "aud": "scepstream", "sub": "7", "nonce": "n",
    "iat": NOW - 1, "exp": NOW + 60, "roles": ["pki"],
}  # fmt: skip
FORGED: Final[dict[str, dict[str, Any]]] = {
    "of another issuer": {"iss": "https://evil.example"},
    "for another audience": {"aud": "other"},
    "for another client among several": {"aud": ["scepstream", "other"], "azp": "other"},
    "for several, and nobody says whom": {"aud": ["scepstream", "other"]},
    "expired": {"exp": NOW - 61},
    "without an end": {"exp": None},
    "of another login": {"nonce": "m"},
    "without a nonce": {"nonce": None},
}


def answered(monkeypatch: pytest.MonkeyPatch, token: object) -> None:
    """The provider's answers, with this ID token."""

    async def answer(_: Any, __: str, url: str, *___: Any, **____: Any) -> dict[str, Any]:
        if url.endswith("configuration"):
            names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            return {name: f"https://login.example/{name}" for name in names} | {
                "issuer": "https://login.example"
            }
        return {"keys": [KEY.as_dict(private=False)]} if "jwks" in url else {"id_token": token}

    monkeypatch.setattr(provider, "_json", answer)


def judged(token: object, monkeypatch: pytest.MonkeyPatch) -> Any:
    answered(monkeypatch, token)
    attempt = provider.LoginState("s", "n", "v")
    return asyncio.run(provider.signed_in_as(oidc("https://login.example"), attempt, "code", NOW))


def test_a_good_token_names_its_user_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(jwt.encode({"alg": "RS256", "kid": "1"}, GOOD, KEY), monkeypatch)

    assert (found.name, found.level) == ("oidc:7", Level.OPERATOR)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "desk-1"}, "oidc:desk-1 (7)"),
        ({"email": "desk@example"}, "oidc:desk@example (7)"),
        ({"preferred_username": "", "email": 7}, "oidc:7"),
    ],
)
def test_a_name_is_told_with_the_subject_that_is_one_users(
    claims: dict[str, Any], name: str
) -> None:
    found = provider.operator_of_claims(oidc("https://login.example"), GOOD | claims)

    assert found.name == name


@pytest.mark.parametrize("subject", [None, "", 7])
def test_nobody_is_not_let_in(subject: object) -> None:
    with pytest.raises(provider.NotSignedInError):
        provider.operator_of_claims(oidc("https://login.example"), GOOD | {"sub": subject})


@pytest.mark.parametrize("how", FORGED)
def test_a_token_that_is_not_for_this_login_is_refused(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = {name: v for name, v in (GOOD | FORGED[how]).items() if v is not None}
    with pytest.raises(provider.NotSignedInError):
        judged(jwt.encode({"alg": "RS256", "kid": "1"}, claims, KEY), monkeypatch)


@pytest.mark.parametrize("token", [None, "", "a.b.c", 7, "eyJhbGciOiJub25lIn0.e30.", "\u00fc"])
def test_what_is_no_token_is_refused(token: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(provider.NotSignedInError):
        judged(token, monkeypatch)


@pytest.mark.parametrize("secret", ["s3cret", None])
def test_a_code_is_exchanged_with_its_verifier_and_the_secret_where_there_is_one(
    secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, Any] = {}

    async def answer(_: Any, method: str, url: str, *__: Any, **options: Any) -> dict[str, Any]:
        sent.update(options, place=f"{method} {url}")
        return {}

    monkeypatch.setattr(provider, "_json", answer)
    metadata, attempt = {"token_endpoint": "https://x/token"}, provider.LoginState("s", "n", "v")
    found = oidc("https://login.example", secret)
    asyncio.run(provider._exchange(httpx.AsyncClient(), metadata, found, attempt, "c"))

    assert sent["place"] == "POST https://x/token"
    assert (sent["data"]["code"], sent["data"]["code_verifier"]) == ("c", "v")
    assert ("client_id" in sent["data"]) is (secret is None)
    assert (sent["auth"] is None) is (secret is None)


def test_another_key_and_a_public_key_as_a_secret_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(provider.NotSignedInError):
        judged(jwt.encode({"alg": "RS256", "kid": "1"}, GOOD, OTHER), monkeypatch)
    unsigned = jwt.encode({"alg": "RS256", "kid": "1"}, GOOD, KEY).rpartition(".")[0] + "."
    with pytest.raises(provider.NotSignedInError):
        judged(unsigned, monkeypatch)
