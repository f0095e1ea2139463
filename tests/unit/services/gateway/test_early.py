"""Which requests are plain enough to be refused without an HTTP parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.early import read_ocsp, read_target
from services.gateway.routes import Target

LINE = b"POST /scep/corp?operation=PKIOperation HTTP/1.1"
CORP = Target("corp")


def request(*fields: bytes, line: bytes = LINE, body: bytes = b"") -> bytes:
    return b"\r\n".join((line, *fields, b"", body))


@pytest.mark.parametrize(
    ("received", "target"),
    [
        (request(b"Host: x", b"Content-Length: 3", body=b"abc"), CORP),
        (request(b"content-length:3", body=b"a\r\n"), CORP),
        (request(b"Content-Length: 7", body=b"a\r\n\r\nbc"), CORP),
        (request(line=LINE.replace(b"1.1", b"1.0")), CORP),
        (request(line=b"GET /scep/corp?operation=PKIOperation&message=AAAA HTTP/1.1"), CORP),
        (
            request(line=b"GET /scep/corp/pkiclient.exe?operation=pkioperation HTTP/1.1"),
            CORP,
        ),
        (request(line=b"POST /scep?operation=PKIOperation HTTP/1.1"), Target("usual")),
        (
            request(line=b"POST /scep-mtls/corp?operation=PKIOperation HTTP/1.1"),
            Target("corp", mtls=True),
        ),
        (request(line=b"POST /elsewhere?operation=PKIOperation HTTP/1.1"), Target(None)),
    ],
)
def test_a_whole_message_is_read(received: bytes, target: Target) -> None:
    assert read_target(received, "usual") == target


@pytest.mark.parametrize(
    "received",
    [
        b"",
        LINE,
        request(b"Content-Length: 3", body=b"ab"),
        request(b"Content-Length: 3", body=b"abcGET / HTTP/1.1"),
        request(body=b"abc"),
        request(b"Content-Length: +3", body=b"abc"),
        request(b"Content-Length: 3,3", body=b"abc"),
        request(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
        request(b"Content-Length: \xb2", body=b"ab"),
        request(b"Content-Length: 0", b"Transfer-Encoding: chunked"),
        request(b"Content-Length: 0", b"Transfer-Encoding : chunked"),
        request(b"Content-Length: 0", b" folded: x"),
        request(b"no colon"),
        request(line=b"POST /scep/corp?x#&operation=PKIOperation HTTP/1.1"),
        request(line=b"POST /scep/corp" + b"/" * 300 + b"?operation=PKIOperation HTTP/1.1"),
        request(line=b"POST /scep/corp?" + b"&" * 300 + b"operation=PKIOperation HTTP/1.1"),
        request(b"Expect: 100-continue", b"Content-Length: 0"),
        request(b"Connection: Upgrade", b"Upgrade: h2c"),
        request(line=b"HEAD /scep/corp?operation=PKIOperation HTTP/1.1"),
        request(line=b"POST /scep/corp?operation=PKIOperation HTTP/2.0"),
        request(line=b"POST  /scep/corp?operation=PKIOperation HTTP/1.1"),
        request(line=b"POST http://h/scep/corp?operation=PKIOperation HTTP/1.1"),
        request(line=b"POST /scep/c%6frp?operation=PKIOperation HTTP/1.1"),
        request(line=b"POST /scep/c\xc3\xb6rp?operation=PKIOperation HTTP/1.1"),
        request(line=b"GET /scep/corp?operation=GetCACaps HTTP/1.1"),
        request(line=b"GET /scep/corp HTTP/1.1"),
        b"\x16\x03\x01\x02\x00\x01",
    ],
)
def test_everything_else_is_left_to_the_parser(received: bytes) -> None:
    assert read_target(received, "usual") is None


@given(st.binary())
def test_no_bytes_are_too_odd(received: bytes) -> None:
    read_target(received, None)
    read_target(LINE + received, None)


@given(st.data())
def test_no_part_of_a_message_is_taken_for_a_whole_one(data: st.DataObject) -> None:
    whole = request(b"Content-Length: 40", body=data.draw(st.binary(min_size=40, max_size=40)))
    cut = data.draw(st.integers(0, len(whole) - 1))

    assert read_target(whole[:cut], None) is None
    assert read_target(whole, None) == CORP


# OCSP

ASK = b"GET /ocsp/local/MDAw HTTP/1.1"


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (request(b"Host: x", line=ASK), ("local", b"000")),
        (request(b"Connection: Keep-Alive", line=ASK), ("local", b"000")),
        (request(line=ASK.replace(b"MDAw", b"MDA%77")), ("local", b"000")),
        (request(b"Content-Length: 3", line=b"POST /ocsp/local HTTP/1.1", body=b"abc"),
         ("local", b"abc")),
    ],
)  # fmt: skip
def test_a_whole_ocsp_request_is_read(received: bytes, expected: tuple[str, bytes]) -> None:
    assert read_ocsp(received) == expected


@pytest.mark.parametrize(
    "received",
    [
        b"",
        request(line=ASK)[:-1],
        request(line=ASK) * 2,
        request(line=ASK.replace(b"1.1", b"1.0")),
        request(line=ASK.replace(b"MDAw", b"MDAw?x")),
        request(line=ASK.replace(b"MDAw", b"")),
        request(line=ASK.replace(b"MDAw", b"!!")),
        request(line=ASK.replace(b"/ocsp/", b"/crl/")),
        request(line=ASK.replace(b"GET", b"HEAD")),
        request(b"Connection: close", line=ASK),
        request(b"connection: upgrade", line=ASK),
        request(b"If-None-Match: *", line=ASK),
        request(b"If-Modified-Since: x", line=ASK),
        request(b"Transfer-Encoding: chunked", line=ASK),
        request(b"Expect: 100-continue", line=ASK),
        request(b"X: a\nContent-Length: 44", line=ASK),
        request(b"X: a\nTransfer-Encoding: chunked", line=ASK),
        request(b"X: a\rb", line=ASK),
        request(b"X: a\x00b", line=ASK),
        request(b"Content-Length: 3", line=ASK, body=b"abc"),
        request(b"Content-Length: 4", line=b"POST /ocsp/local HTTP/1.1", body=b"abc"),
        request(b"Content-Length: 3", line=b"POST /ocsp/local/x HTTP/1.1", body=b"abc"),
        request(line=ASK.replace(b"MDAw", b"A" * 20_000)),
    ],
)
def test_another_request_is_left_to_the_parser(received: bytes) -> None:
    assert read_ocsp(received) is None


@given(st.binary(max_size=300), st.sampled_from([b"", ASK, b"POST /ocsp/local HTTP/1.1\r\n"]))
def test_any_bytes_are_a_request_or_left_to_the_parser(rest: bytes, begin: bytes) -> None:
    found = read_ocsp(begin + rest)
    assert found is None or (found[0] and isinstance(found[1], bytes))
