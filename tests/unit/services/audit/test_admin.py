"""The operators' API where what it rests on is away, and tokens on both databases."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jsonschema_rs import validate
from sqlalchemy import Engine

from services.audit.admin.app import admin_app
from services.audit.admin.auth import (
    Level,
    Operator,
    add_token,
    is_first,
    list_tokens,
    operator_of,
    revoke_token,
)
from services.audit.admin.desk import Desk
from services.audit.admin.examples import ANSWERS
from services.audit.admin.first import ensure_admin
from services.audit.tables import metadata, tokens
from shared.sections import Configuration
from shared.settings import SettingsError
from tests.fakes.memory_bus import MemoryBus

TOKEN = "a-token-that-is-long-enough-for-it"


def broken() -> Configuration:
    raise SettingsError("profiles.demo.ra_cert_path: missing")


@pytest.fixture
def asked(engine: Engine) -> Callable[..., httpx.Response]:
    """GET with an admin's token."""
    add_token(engine, "admin", Level.ADMIN, TOKEN, 0)
    desk = Desk(engine, MemoryBus(), None, broken, lambda: 0.0)  # type: ignore[arg-type]  # unread
    transport = httpx.ASGITransport(admin_app(desk, lambda: ""))

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

    assert (found.status_code, found.json()["detail"]) == (503, "the database cannot be asked now")
    assert "marker-4711" not in found.text + "".join(capsys.readouterr())


def test_without_the_table_of_tokens_nobody_is_let_in(
    asked: Callable[..., httpx.Response], engine: Engine
) -> None:
    tokens.drop(engine)
    assert asked("/api/v1/enrollments").status_code == 503


# Tokens


def never() -> str | None:
    """The file is read for the first token alone."""
    pytest.fail("read the file of the first token")


def test_a_token_is_good_until_it_is_taken_back(engine: Engine) -> None:
    assert add_token(engine, "desk", Level.OPERATOR, TOKEN, 5)
    assert operator_of(engine, TOKEN) == Operator("desk", Level.OPERATOR)
    assert operator_of(engine, TOKEN[:-1]) is None
    assert revoke_token(engine, "desk", 9)
    assert not revoke_token(engine, "desk", 10)

    assert operator_of(engine, TOKEN) is None
    assert list_tokens(engine) == [("desk", "operator", 5, 9)]


@pytest.mark.parametrize("name", ["desk", "another"])
def test_a_name_and_a_token_are_used_once(engine: Engine, name: str) -> None:
    assert add_token(engine, "desk", Level.VIEWER, TOKEN, 5)
    token = TOKEN if name == "another" else "another"
    assert not add_token(engine, name, Level.ADMIN, token, 6)

    assert list_tokens(engine) == [("desk", "viewer", 5, None)]


def test_levels_cover_those_before_them() -> None:
    covered = {(a.value, b.value) for a in Level for b in Level if a.covers(b)}
    assert covered == {
        ("viewer", "viewer"),
        ("operator", "viewer"), ("operator", "operator"),
        ("admin", "viewer"), ("admin", "operator"), ("admin", "admin"),
    }  # fmt: skip


@pytest.mark.parametrize("configured", [TOKEN, None])
def test_the_first_token_is_made_once(
    engine: Engine, configured: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure_admin(engine, lambda: configured, 1.0)
    printed = capsys.readouterr().err
    token = configured or printed.removeprefix("admin token, shown this once: ").strip()
    ensure_admin(engine, never, 2.0)

    assert bool(printed) is (configured is None)
    assert operator_of(engine, token) == Operator("admin", Level.ADMIN)
    assert list_tokens(engine) == [("admin", "admin", 1, None)]


def test_an_admin_taken_back_does_not_come_again(engine: Engine) -> None:
    ensure_admin(engine, lambda: TOKEN, 1.0)
    revoke_token(engine, "admin", 2)
    ensure_admin(engine, never, 3.0)

    assert not is_first(engine)
    assert operator_of(engine, TOKEN) is None


def test_a_replica_that_makes_the_first_token_a_moment_later_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure_admin(engine, lambda: TOKEN, 1.0)
    late: Callable[[Engine], bool] = lambda _: True  # noqa: E731 - it looked before the other wrote
    monkeypatch.setattr("services.audit.admin.first.is_first", late)
    ensure_admin(engine, lambda: None, 1.0)

    assert capsys.readouterr().err == ""
    assert list_tokens(engine) == [("admin", "admin", 1, None)]
