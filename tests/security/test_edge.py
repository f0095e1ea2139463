"""Strangers at the SCEP port: no credential, many addresses, and all the time in the world."""

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.security.edge import Crowd, exchange, flood, post_head, sources
from tests.security.siege import Siege
from tests.support.requests import Endpoint

_HELD = 3.0
_FLOOD = 3.0


@pytest.fixture
def endpoint(siege: Siege) -> Endpoint:
    return siege.endpoint()


def test_silent_connections_are_no_hindrance_and_are_closed(
    siege: Siege, endpoint: Endpoint
) -> None:
    with Crowd(endpoint.address, sources()) as crowd:
        with siege.attacked():
            crowd.open(1200)
        assert crowd.wait_closed(45) == 0


def test_heads_that_never_end_are_cut_off(siege: Siege, endpoint: Endpoint) -> None:
    """A byte now and then keeps no connection alive for ever."""
    with Crowd(endpoint.address, sources()) as crowd:
        with siege.attacked():
            crowd.open(600, b"GET /scep/demo?operation=GetCACaps HTTP/1.1\r\n")
            crowd.trickle(itertools.cycle((b"x", b": ", b"y", b"\r\n")), _HELD)
        begun = time.monotonic()
        while crowd.still_open() and time.monotonic() < begun + 45:
            crowd.trickle(itertools.repeat(b"z"), 0.5)
        assert crowd.still_open() == 0


def test_bodies_that_never_come_take_nobodys_place(siege: Siege, endpoint: Endpoint) -> None:
    """More of them from each of a few addresses than a gateway serves at once."""
    with Crowd(endpoint.address, sources(count=2)) as crowd:
        with siege.attacked():
            crowd.open(2100, post_head(endpoint, 4096) + b"0")
        assert crowd.wait_closed(60) == 0


def test_bodies_that_trickle_take_nobodys_place(siege: Siege, endpoint: Endpoint) -> None:
    with Crowd(endpoint.address, sources()) as crowd, siege.attacked():
        crowd.open(400, post_head(endpoint, 200_000))
        crowd.trickle(itertools.repeat(b"0"), _HELD)


def test_chunks_that_trickle_take_nobodys_place(siege: Siege, endpoint: Endpoint) -> None:
    with Crowd(endpoint.address, sources()) as crowd, siege.attacked():
        crowd.open(400, post_head(endpoint, -1, b"Transfer-Encoding: chunked"))
        crowd.trickle(itertools.repeat(b"1\r\n0\r\n"), _HELD)


def test_uploads_that_break_off_take_nobodys_place(siege: Siege, endpoint: Endpoint) -> None:
    with siege.attacked():
        for _ in range(4):
            with Crowd(endpoint.address, sources()) as crowd:
                crowd.open(200, post_head(endpoint, 100_000) + bytes(1000))


@pytest.mark.parametrize(
    "junk",
    [
        b"\0" * 4096,
        b"\x16\x03\x01\x02\x00" + bytes(200),
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET /scep/demo?operation=PKIOperation&message=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        (
            b"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"
        ),
        (
            b"POST /scep/demo?operation=PKIOperation HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"
        ),
    ],
    ids=["zeros", "TLS", "no target", "no message", "negative", "two lengths", "endless chunk"],
)
def test_a_flood_of_junk_stops_nobody(siege: Siege, endpoint: Endpoint, junk: bytes) -> None:
    with siege.attacked():
        assert flood(endpoint.address, junk, sources(), _FLOOD / 2) > 0


def test_random_bytes_stop_nobody(siege: Siege, endpoint: Endpoint) -> None:
    with siege.attacked():
        for length in (1, 10, 100, 1000, 10_000, 60_000):
            body = os.urandom(length)
            flood(endpoint.address, post_head(endpoint, length) + body, sources(), 0.5)


def test_a_flood_of_good_questions_stops_nobody(siege: Siege, endpoint: Endpoint) -> None:
    asked = f"GET {endpoint.path}?operation=GetCACert HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with siege.attacked():
        flood(endpoint.address, asked, sources(), _FLOOD)


def test_pipelined_requests_stop_nobody(siege: Siege, endpoint: Endpoint) -> None:
    """Thousands at once on one connection, whose answers nobody reads."""
    asked = f"GET {endpoint.path}?operation=GetCACert HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with Crowd(endpoint.address, sources()) as crowd, siege.attacked():
        crowd.open(40, asked * 800)
        crowd.trickle(itertools.repeat(asked * 100), _HELD)


def test_heads_without_bounds_are_cut_off(siege: Siege, endpoint: Endpoint) -> None:
    head = f"GET {endpoint.path} HTTP/1.1\r\n".encode()
    line = b"x-" + secrets.token_hex(8).encode() + b": " + b"y" * 8000 + b"\r\n"
    with Crowd(endpoint.address, sources()) as crowd:
        with siege.attacked():
            crowd.open(60, head)
            crowd.trickle(itertools.repeat(line * 4), _HELD, 0.1)
        assert crowd.wait_closed(45) == 0


@pytest.mark.parametrize("length", [10**6, 10**30])
def test_more_than_a_message_may_have_is_refused(
    siege: Siege, endpoint: Endpoint, length: int
) -> None:
    with siege.attacked():
        answer = exchange(endpoint.address, post_head(endpoint, length) + bytes(70_000))
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))


# The admin port


def _admin(siege: Siege) -> tuple[str, int]:
    host, _, port = siege.system.run["admin_url"].removeprefix("http://").rpartition(":")
    return host, int(port)


def _upload(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_who_brings_no_token_fills_nobodys_memory(siege: Siege) -> None:
    """Bodies of many megabytes to routes that want a token, and to the one that makes sessions."""
    address = _admin(siege)
    size = 40 * 2**20
    paths = ("/api/v1/challenges", "/login", "/api/v1/admin/scep/reload-ra")
    with siege.attacked(), ThreadPoolExecutor(len(paths)) as pool:
        answers = list(pool.map(lambda path: _pour(address, path, size), paths))
    assert not any(answer.startswith(b"HTTP/1.1 2") for answer in answers)


def _pour(address: tuple[str, int], path: str, size: int) -> bytes:
    return exchange(address, _upload(path, size) + b"[" * size, seconds=15)


def test_silent_and_slow_clients_keep_no_operator_out(siege: Siege) -> None:
    address = _admin(siege)
    with Crowd(address, sources()) as crowd, siege.attacked():
        crowd.open(300)
        crowd.open(300, b"GET /login HTTP/1.1\r\n")
        crowd.open(300, _upload("/login", 4096) + b"0")
        with contextlib.suppress(StopIteration):
            crowd.trickle(_few(b"x", 4), _HELD)
        asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert exchange(address, asked, "127.7.0.250").startswith(b"HTTP/1.1 200")


def _few(part: bytes, count: int) -> Iterator[bytes]:
    return itertools.repeat(part, count)


def test_a_flood_of_guessed_tokens_stops_nobody(siege: Siege) -> None:
    asked = b"GET /api/v1/enrollments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n\r\n"
    with siege.attacked():
        assert flood(_admin(siege), asked, sources(), _FLOOD) > 0
