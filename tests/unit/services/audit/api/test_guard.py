"""What the admin port refuses before it reads: strangers' bodies, foreign hosts, guesses."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Engine, insert
from starlette.types import Receive, Scope, Send

from services.audit.api.deadlines import Bounded, Kind
from services.audit.api.forms import WholeForms
from services.audit.query.certificates import CertificateFilter, list_certificates
from services.audit.query.life import RenewalWindows
from services.audit.roles import Level
from services.audit.store.api_tokens import add_token
from services.audit.store.tables import certificates
from shared.config.sections import Configuration
from shared.limits import (
    ADMIN_BODY_BYTES,
    ADMIN_UNANSWERED,
    FAILURES_IN_ALL,
    PAGE_BYTES,
    TOKEN_FAILURES,
)
from shared.runtime.process import HttpServer
from tests.support.operator_api import TLS, TOKEN, Browser, browser

ORDER = "/api/v1/enrollments/none/approve"
CHUNK = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def broken() -> Configuration:
    """No test here needs one."""
    pytest.fail("read the configuration")


@pytest.fixture
def deps(engine: Engine) -> Browser:
    return browser(engine, broken)


# Bodies, over a real socket


@asynccontextmanager
async def served(deps: Browser) -> AsyncIterator[int]:
    """The application's port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = HttpServer(deps.app, [listener])
    server.start()
    yield port
    await server.stop()


async def upload(port: int, head: str, chunks: int) -> tuple[bytes, int]:
    """(status line, chunks sent) of an upload that goes on until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {head}\r\n\r\n".encode())
    sent, status = 0, b""
    try:
        for sent in range(chunks):  # noqa: B007 - how far it came is the result
            writer.write(CHUNK)
            await writer.drain()
        status = await reader.readline()
    except OSError:
        pass
    writer.close()
    return status, sent


@pytest.mark.parametrize(
    "token", ["", "Authorization: Bearer wrong\r\n", f"Authorization: Bearer {TOKEN}\r\n"]
)
async def test_a_body_of_150_mb_is_not_read(deps: Browser, token: str) -> None:
    async with served(deps) as port:
        head = f"{ORDER} HTTP/1.1\r\nHost: x\r\n{token}Transfer-Encoding: chunked"
        _, sent = await upload(port, head, 2400)

    assert sent < 200  # what sockets hold, of 2 400


async def test_without_a_token_the_answer_is_401_before_the_body_comes(deps: Browser) -> None:
    async with served(deps) as port:
        for declared, token, status in (
            (100_000_000, "", b"401"),
            (10, "", b"401"),
            (ADMIN_BODY_BYTES + 1, f"Authorization: Bearer {TOKEN}\r\n", b"413"),
        ):
            head = f"{ORDER} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: {declared}"
            answer, _ = await upload(port, head, 0)
            assert answer.split()[1] == status


async def test_a_form_is_small(deps: Browser) -> None:
    async with served(deps) as port:
        head = f"/login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {ADMIN_BODY_BYTES + 1}"
        answer, _ = await upload(port, head, 0)
    assert answer.split()[1] == b"413"


async def test_slow_forms_do_not_count_as_owed_by_the_database(deps: Browser) -> None:
    kind = Kind(0.05, ADMIN_UNANSWERED)
    bounded = Bounded(deps.app, lambda: False, lambda *_: kind)
    forms, arrived = WholeForms(bounded), asyncio.Semaphore(0)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.release()
        await forms(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = HttpServer(counted, [listener])
    server.start()
    head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n"
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(ADMIN_UNANSWERED)]
    for _, writer in slow:
        writer.write(head)
    for _ in slow:
        await arrived.acquire()
    await asyncio.sleep(2 * kind.seconds)  # more than the application has for each
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    for _, each in (*slow, (reader, writer)):
        each.close()
    await server.stop()


# Hosts


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421), ("admin.example.evil.example", 421), ("", 421), ("[::1", 421),
        ("x:99999999", 421), ("127.0.0.1.evil.example", 421), ("localhost", 200),
        ("localhost:8090", 200), ("127.0.0.1:8090", 200), ("[::1]:8090", 200), ("audit", 200),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/login", "/static/x/page.css"])
def test_the_page_is_served_under_names_that_nobody_else_can_point_here(
    deps: Browser, host: str, status: int, path: str
) -> None:
    found = deps.get(path, headers={"host": host}).status_code
    assert (found == 421) is (status == 421)


def test_health_and_api_are_served_under_every_name(deps: Browser) -> None:
    headers = {"host": "10.0.0.7.pods.example"}
    assert deps.get("/healthz", headers=headers).status_code == 200
    assert deps.get("/api/v1/enrollments", headers=headers).status_code == 401


def test_a_login_at_a_foreign_host_is_refused(deps: Browser) -> None:
    """As a page of that name would send it that resolves to this host now (DNS rebinding)."""
    headers = {"host": "evil.example", "origin": "http://evil.example"}
    assert deps.sign_in(headers=headers).status_code == 421


@pytest.mark.parametrize("host", ["admin.example", "audit-0.internal.example:8090", "10.0.0.7"])
def test_behind_a_proxy_with_a_host_of_its_own_the_public_origin_signs_in(
    engine: Engine, host: str
) -> None:
    deps = browser(engine, broken, public_url=TLS)
    for origin in (TLS, f"{TLS}:443"):
        headers = {"host": host, "origin": origin, "sec-fetch-site": "same-origin"}
        assert deps.sign_in(headers=headers).status_code == 303


@pytest.mark.parametrize(
    "origin", ["http://admin.example", "https://evil.example", "null", f"{TLS}:8443", "https://["]
)
def test_another_origin_does_not_sign_in(engine: Engine, origin: str) -> None:
    deps = browser(engine, broken, public_url=TLS)
    assert deps.sign_in(headers={"origin": origin}).status_code == 403


@pytest.mark.parametrize(
    "path", ["/scep/", "/login/", "/healthz/", "/metrics/", "/api/v1/commands/"]
)
def test_no_redirect_follows_the_host(deps: Browser, path: str) -> None:
    found = deps.get(path, headers={"host": "127.0.0.1"})
    assert found.status_code == 404
    assert "location" not in found.headers


# Guesses


def guess(deps: Browser, token: str) -> int:
    return deps.get("/api/v1/enrollments", headers={"authorization": f"Bearer {token}"}).status_code


def test_guesses_of_tokens_are_throttled_and_known_tokens_go_on(
    deps: Browser, engine: Engine
) -> None:
    add_token(engine, "new", Level.VIEWER, "another-token-that-is-good", 0)
    assert guess(deps, TOKEN) == 200
    assert {guess(deps, f"guess-{number}") for number in range(TOKEN_FAILURES)} == {401}
    assert guess(deps, "another-token-that-is-good") == 401  # not even looked up
    assert guess(deps, TOKEN) == 200
    other = Browser(deps.app, deps.clock, address="192.0.2.99")
    assert guess(other, "another-token-that-is-good") == 200
    deps.clock.seconds += 61
    assert guess(Browser(deps.app, deps.clock), "wrong") == 401


def test_all_sources_together_have_a_bound_too(deps: Browser) -> None:
    clients = [
        Browser(deps.app, deps.clock, address=f"10.0.{number // 250}.{number % 250}")
        for number in range(FAILURES_IN_ALL)
    ]
    assert {client.sign_in("wrong").status_code for client in clients} == {401}
    assert clients[0].sign_in("wrong").status_code == 429
    assert Browser(deps.app, deps.clock, address="10.9.9.9").sign_in(TOKEN).status_code == 303


def test_guesses_from_elsewhere_refuse_nobody_a_token_that_is_good(
    deps: Browser, engine: Engine
) -> None:
    add_token(engine, "new", Level.VIEWER, "another-token-that-is-good", 0)
    clients = [
        Browser(deps.app, deps.clock, address=f"10.0.{number // 250}.{number % 250}")
        for number in range(FAILURES_IN_ALL)
    ]
    assert {guess(client, "wrong") for client in clients} == {401}
    honest = Browser(deps.app, deps.clock, address="10.9.9.9")
    assert guess(honest, "another-token-that-is-good") == 200
    assert guess(clients[0], "third-token-that-is-good") == 401


def test_a_64_is_one_source(deps: Browser) -> None:
    found = [
        Browser(deps.app, deps.clock, address=f"2001:db8::{n}").sign_in("wrong").status_code
        for n in range(11)
    ]
    assert found == [401] * 10 + [429]


# Lists


def test_a_page_of_a_list_ends_at_its_size_and_nothing_is_left_out(engine: Engine) -> None:
    with engine.begin() as connection:
        for number in range(20):
            values = {"issuer": "local", "serial": f"{number:04d}", "recorded_at": 1}
            values |= {"enrollment": "e", "subject": "\x01" * 100_000}
            connection.execute(insert(certificates).values(values))
    seen, cursor, pages = [], None, 0
    with engine.connect() as connection:
        while pages == 0 or cursor:
            page = list_certificates(
                connection, CertificateFilter(RenewalWindows(), 0, cursor=cursor, limit=50)
            )
            size = sum(len(repr(value)) for each in page.rows for value in each.values())
            assert size <= PAGE_BYTES or len(page.rows) == 1
            seen += [each["serial"] for each in page.rows]
            cursor, pages = page.next_cursor, pages + 1
    assert seen == [f"{number:04d}" for number in reversed(range(20))]
    assert pages > 5
