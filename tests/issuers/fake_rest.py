"""What the fakes of vendors' REST APIs share."""

from collections.abc import Awaitable, Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Handler = Callable[[Request], Awaitable[Response]]


class FakeError(Exception):
    """An error answer of the vendor: status and JSON body."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        super().__init__(str(body))
        self.status, self.body, self.headers = status, body, headers


async def on_error(_: Request, error: Exception) -> Response:
    """The handler of `FakeError` for Starlette."""
    assert isinstance(error, FakeError)
    return JSONResponse(error.body, error.status, headers=error.headers)


def pem_of(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def hex_serial(der: bytes) -> str:
    """A certificate's serial number in hex, whole octets."""
    digits = f"{x509.load_der_x509_certificate(der).serial_number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def only(body: Any, required: set[str], optional: set[str]) -> str:
    """What is wrong with the keys of a JSON object, "" if nothing is."""
    if not isinstance(body, dict):
        return "the body is not an object"
    if missing := required - set(body):
        return f"missing: {', '.join(sorted(missing))}"
    if odd := set(body) - required - optional:
        return f"unknown: {', '.join(sorted(odd))}"
    return ""
