"""The operators' API where what it rests on is away, and tokens on both databases."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jsonschema_rs import validate
from sqlalchemy import Engine

from services.audit.api.dependencies import Dependencies
from services.audit.api.examples import ANSWERS
from services.audit.app import admin_app
from services.audit.roles import Level
from services.audit.store.api_tokens import add_token
from services.audit.store.tables import metadata, tokens
from shared.config.load import SettingsError
from shared.config.sections import Configuration
from tests.fakes.memory_bus import MemoryBus

TOKEN = "a-token-that-is-long-enough-for-it"


def broken() -> Configuration:
    raise SettingsError("profiles.demo.ra_cert_path: missing")


@pytest.fixture
def asked(engine: Engine) -> Callable[..., httpx.Response]:
    """GET with an admin's token."""
    add_token(engine, "admin", Level.ADMIN, TOKEN, 0)
    deps = Dependencies(engine, MemoryBus(), None, broken, lambda: 0.0)  # type: ignore[arg-type]  # unread
    transport = httpx.ASGITransport(admin_app(deps, lambda: ""))

    async def ask(path: str, **params: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://admin", headers=headers
        ) as client:
            return await client.get(path, params=params)

    return lambda path, **params: asyncio.run(ask(path, **params))


def test_every_example_of_the_document_is_one(asked: Callable[..., httpx.Response]) -> None:
    document = asked("/api/v1/openapi.json").json()
    routes = [
        (operation, example)
        for item in document["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if int(status) < 400
        for example in [response["content"]["application/json"]]
    ]

    assert len(routes) == len(ANSWERS)
    known = {"components": document["components"]}
    for operation, content in routes:
        validate(content["schema"] | known, content["example"])
        for parameter in operation.get("parameters", ()):
            if "example" in parameter:
                validate(parameter["schema"] | known, parameter["example"])


def test_a_broken_configuration_is_told_and_is_no_crash(
    asked: Callable[..., httpx.Response],
) -> None:
    found = asked("/api/v1/admin/scep/profiles")

    assert found.status_code == 503
    assert "profiles.demo.ra_cert_path" in found.json()["detail"]


def test_a_database_that_fails_is_told_without_what_was_asked(
    asked: Callable[..., httpx.Response], engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata.tables["names"].drop(engine)
    found = asked("/api/v1/enrollments", search="marker-4711")

    assert (found.status_code, found.json()["detail"]) == (503, "the database is unavailable")
    assert "marker-4711" not in found.text + "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["limit", "action", "nobody-knows-it"])
def test_a_parameter_that_comes_twice_is_refused(
    asked: Callable[..., httpx.Response], name: str
) -> None:
    found = asked("/api/v1/audit", **{name: ["1", "1"]})

    assert (found.status_code, found.headers["content-type"]) == (400, "application/problem+json")


def test_without_the_table_of_tokens_nobody_is_let_in(
    asked: Callable[..., httpx.Response], engine: Engine
) -> None:
    tokens.drop(engine)
    assert asked("/api/v1/enrollments").status_code == 503
