"""What becomes of a connection after its answer."""

import pytest

from tests.support.requests import Device, Endpoint, answer, certificate, connection


def head(endpoint: Endpoint, request: str, *lines: str) -> bytes:
    method, query, version = request.split()
    first = f"{method} {endpoint.path}?{query} HTTP/{version}"
    return "\r\n".join((first, *lines, "", "")).encode()


def test_a_connection_that_the_client_wants_closed_is_closed_after_the_answer(
    demo: Endpoint,
) -> None:
    device = Device.new()
    request = device.enrollment(demo)
    length = f"Content-Length: {len(request.body)}"
    with connection(demo) as opened:
        lines = ("Host: x", "Connection: close", length)
        opened.send(head(demo, "POST operation=PKIOperation 1.1", *lines), request.body)
        certificate(demo, device, answer(demo, request, opened.response()))
        assert opened.ended()


@pytest.mark.parametrize(
    ("query", "status"),
    [("operation=Nothing", 400), ("operation=GetNextCACert", 404), ("operation=PKIOperation", 400)],
)
def test_a_connection_outlives_a_refusal(demo: Endpoint, query: str, status: int) -> None:
    with connection(demo) as opened:
        for _ in range(2):
            opened.send(head(demo, f"GET {query} 1.1", "Host: x"))
            assert opened.response().status_code == status
        opened.send(head(demo, "GET operation=GetCACaps 1.1", "Host: x"))
        assert opened.response().status_code == 200


def test_an_http_1_0_connection_ends_with_its_answer_and_nothing_says_otherwise(
    demo: Endpoint,
) -> None:
    with connection(demo) as opened:
        opened.send(head(demo, "GET operation=GetCACaps 1.0", "Connection: keep-alive"))
        response = opened.response()
        assert response.status_code == 200
        assert response.headers.get("connection") != "keep-alive"
        assert opened.ended()


def test_a_client_that_expects_to_be_told_to_go_on_is(demo: Endpoint) -> None:
    """As curl does with a body of more than a kilobyte."""
    device = Device.new()
    request = device.enrollment(demo)
    length = f"Content-Length: {len(request.body)}"
    with connection(demo) as opened:
        lines = ("Host: x", "Expect: 100-continue", length)
        opened.send(head(demo, "POST operation=PKIOperation 1.1", *lines))
        first = b""
        while not first.endswith(b"\r\n\r\n"):
            first += opened.socket.recv(1)
        assert first.startswith(b"HTTP/1.1 100 ")
        opened.send(request.body)
        certificate(demo, device, answer(demo, request, opened.response()))
