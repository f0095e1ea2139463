"""Tokens of the API: good until they are taken back, and each on the log."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from services.audit.commands.api_tokens import create_token, revoke_token
from services.audit.commands.context import (
    ConflictError,
    MalformedError,
    NotFoundError,
    OperatorContext,
)
from services.audit.commands.first_admin import ensure_admin
from services.audit.roles import Level, Operator
from services.audit.store.api_tokens import (
    add_token,
    is_first,
    list_tokens,
    mark_revoked,
    operator_of,
)
from shared.bus.core import BusUnavailableError
from shared.log.envelope import authenticate_any
from shared.log.streams import OPS
from tests.fakes.memory_bus import MemoryBus
from tests.support.operator_api import settings
from tests.support.world import memory_bus, messages_of

TOKEN = "a-token-that-is-long-enough-for-it"


@pytest.fixture
def bus() -> MemoryBus:
    return memory_bus()


@pytest.fixture
def context(bus: MemoryBus) -> OperatorContext:
    """Where ann gives commands."""
    unread: Any = None  # tokens are of no profile
    return OperatorContext(bus, settings(), unread, {}, {}, "ann")


def told(context: OperatorContext, bus: MemoryBus) -> list[dict[str, Any]]:
    """What the log says, signed by the auditor: all but `request_sha256`, with the event's kind."""
    found = []
    for stored in messages_of(bus, OPS):
        event = authenticate_any(stored, context.operators)
        names = [n for n in event.__struct_fields__ if n != "request_sha256"]
        found.append({"kind": type(event).__name__} | {n: getattr(event, n) for n in names})
    return found


def never() -> str | None:
    """The file is read for the first token alone."""
    pytest.fail("read the file of the first token")


def test_a_token_is_good_until_it_is_taken_back(engine: Engine) -> None:
    assert add_token(engine, "desk", Level.OPERATOR, TOKEN, 5)
    assert operator_of(engine, TOKEN) == Operator("desk", Level.OPERATOR)
    assert operator_of(engine, TOKEN[:-1]) is None
    assert mark_revoked(engine, "desk", 9)
    assert not mark_revoked(engine, "desk", 10)

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


async def test_a_token_made_and_taken_back_is_on_the_log_and_its_secret_is_not(
    context: OperatorContext, bus: MemoryBus, engine: Engine
) -> None:
    token = await create_token(context, engine, "desk", Level.OPERATOR, 5.0)
    good = operator_of(engine, token)
    await revoke_token(context, engine, "desk", 9.0)

    assert good == Operator("desk", Level.OPERATOR)
    assert operator_of(engine, token) is None
    assert list_tokens(engine) == [("desk", "operator", 5, 9)]
    assert told(context, bus) == [
        {"kind": "ApiTokenCreated", "name": "desk", "level": "operator", "operator": "ann"},
        {"kind": "ApiTokenRevoked", "name": "desk", "operator": "ann"},
    ]
    assert not any(token.encode() in m.payload + m.subject.encode() for m in messages_of(bus, OPS))


async def test_a_name_stays_taken_and_a_second_taking_back_is_an_error(
    context: OperatorContext, bus: MemoryBus, engine: Engine
) -> None:
    await create_token(context, engine, "desk", Level.VIEWER, 5.0)
    await revoke_token(context, engine, "desk", 6.0)
    with pytest.raises(ConflictError, match="the API token name desk is or was in use"):
        await create_token(context, engine, "desk", Level.ADMIN, 7.0)
    for name in ("desk", "nobody"):
        with pytest.raises(NotFoundError, match=f"no valid API token named {name}"):
            await revoke_token(context, engine, name, 7.0)

    assert [each["kind"] for each in told(context, bus)] == ["ApiTokenCreated", "ApiTokenRevoked"]


@pytest.mark.parametrize("name", ["with.dots", "a b", "*", ">", "Jörg", "x" * 64])
async def test_any_name_has_its_place_on_the_log(
    context: OperatorContext, bus: MemoryBus, engine: Engine, name: str
) -> None:
    await create_token(context, engine, name, Level.VIEWER, 5.0)

    assert [each["name"] for each in told(context, bus)] == [name]


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "a\0b", "\ud800"])
async def test_a_name_that_no_column_or_page_holds_is_refused_before_the_log(
    context: OperatorContext, bus: MemoryBus, engine: Engine, name: str
) -> None:
    with pytest.raises(MalformedError, match="1 to 64 printable characters"):
        await create_token(context, engine, name, Level.VIEWER, 5.0)

    assert told(context, bus) == []


async def test_what_the_log_cannot_keep_does_not_happen(
    context: OperatorContext, bus: MemoryBus, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_token(context, engine, "desk", Level.VIEWER, 5.0, TOKEN)

    async def away(*_: object) -> int:
        raise BusUnavailableError("away")

    monkeypatch.setattr(bus, "append", away)
    with pytest.raises(BusUnavailableError):
        await create_token(context, engine, "other", Level.VIEWER, 6.0)
    with pytest.raises(BusUnavailableError):
        await revoke_token(context, engine, "desk", 6.0)

    assert list_tokens(engine) == [("desk", "viewer", 5, None)]


@pytest.mark.parametrize(("call", "left"), [(create_token, None), (revoke_token, 1)])
async def test_a_process_that_dies_between_log_and_database_leaves_it_to_be_done_again(
    context: OperatorContext,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Awaitable[Any]],
    left: int | None,
) -> None:
    if left:
        await create_token(context, engine, "desk", Level.VIEWER, 5.0)
    arguments = (context, engine, "desk", *((Level.VIEWER,) if call is create_token else ()), 6.0)

    def dies(*_: object) -> bool:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        for name in ("add_token", "mark_revoked"):
            patched.setattr(f"services.audit.commands.api_tokens.{name}", dies)
        with pytest.raises(asyncio.CancelledError):
            await call(*arguments)
    await call(*arguments)

    ((_, _, _, revoked_at),) = list_tokens(engine)
    assert revoked_at == (6 if left else None)


@pytest.mark.parametrize("configured", [TOKEN, None])
async def test_the_first_token_is_made_once(
    context: OperatorContext,
    bus: MemoryBus,
    engine: Engine,
    configured: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await ensure_admin(context, engine, lambda: configured, 1.0)
    printed = capsys.readouterr().err
    token = configured or printed.removeprefix("admin token (shown once): ").strip()
    await ensure_admin(context, engine, never, 2.0)

    assert bool(printed) is (configured is None)
    assert operator_of(engine, token) == Operator("admin", Level.ADMIN)
    assert list_tokens(engine) == [("admin", "admin", 1, None)]
    assert [each["name"] for each in told(context, bus)] == ["admin"]


async def test_an_admin_taken_back_does_not_come_again(
    context: OperatorContext, engine: Engine
) -> None:
    await ensure_admin(context, engine, lambda: TOKEN, 1.0)
    mark_revoked(engine, "admin", 2)
    await ensure_admin(context, engine, never, 3.0)

    assert not is_first(engine)
    assert operator_of(engine, TOKEN) is None


async def test_a_replica_that_makes_the_first_token_a_moment_later_goes_on(
    context: OperatorContext,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await ensure_admin(context, engine, lambda: TOKEN, 1.0)
    late: Callable[[Engine], bool] = lambda _: True  # noqa: E731 - it looked before the other wrote
    monkeypatch.setattr("services.audit.commands.first_admin.is_first", late)
    await ensure_admin(context, engine, lambda: None, 1.0)

    assert capsys.readouterr().err == ""
    assert list_tokens(engine) == [("admin", "admin", 1, None)]
