"""Faults: what may go wrong between a service and its client."""

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cli.fake_microsoft.exchange import Answer
from cli.fake_microsoft.model import Fault

# The request is not carried out.
INSTEAD: Final = ("reset", "status", "html", "redirect")
# The request is carried out, and its answer spoiled.
SPOILED: Final = ("lost", "delay", "truncated", "wrong-type", "huge", "drip", "gzip")
KINDS: Final = (*INSTEAD, *SPOILED)
_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "status": frozenset({"status", "retry_after"}),
    "redirect": frozenset({"location"}),
    "delay": frozenset({"seconds"}),
    "drip": frozenset({"seconds"}),
    "huge": frozenset({"size"}),
    "gzip": frozenset({"size"}),
}
_HUGE: Final = 4 * 1024 * 1024
_MAX_SIZE: Final = 256 * 1024 * 1024
_CHUNK: Final = 64 * 1024
_HTML: Final = b"<!DOCTYPE html><html><body><h1>Our services aren't available</h1></body></html>"
_JSON: Final = "application/json; odata.metadata=minimal"


def new_fault(route: str, kind: str, times: int, tenant: str, options: Mapping[str, Any]) -> Fault:
    """Return a fault; `ValueError` if there is no such kind or option."""
    if kind not in KINDS:
        raise ValueError(f"unknown fault {kind}: choose one of {', '.join(KINDS)}")
    if unknown := set(options) - _OPTIONS.get(kind, frozenset()):
        raise ValueError(f"fault {kind} has no option {', '.join(sorted(unknown))}")
    if not 0 <= int(options.get("size", 0)) <= _MAX_SIZE:
        raise ValueError(f"size is larger than {_MAX_SIZE}")
    for name in ("status", "seconds"):
        float(options.get(name, 0))
    return Fault(route, kind, times, tenant, options)


def instead(fault: Fault) -> Answer | None:
    """Return the answer to a request that is not carried out; None cuts the connection."""
    options = fault.options
    match fault.kind:
        case "html":
            return Answer(200, _HTML, headers={"content-type": "text/html"})
        case "redirect":
            location = options.get("location", "https://localhost:1/elsewhere")
            return Answer(307, b"", headers={"location": str(location)})
        case "status":
            wait = options.get("retry_after")
            headers = {} if wait is None else {"retry-after": str(wait)}
            error = {"error": {"code": "InternalError", "message": "injected"}}
            return Answer(int(options.get("status", 503)), error, headers=headers)
    return None


def response(answer: Answer) -> Response:
    """Return an answer as it is."""
    headers = {"content-type": _JSON} | dict(answer.headers)
    return Response(answer.encoded(), answer.status, headers=headers)


async def spoiled(answer: Answer, fault: Fault, request: Request) -> Response:
    """Return the answer with a fault in it; "lost" cuts the connection."""
    body, options = answer.encoded(), fault.options
    headers = {"content-type": _JSON} | dict(answer.headers)
    match fault.kind:
        case "lost":
            return cut(request)
        case "delay":
            await asyncio.sleep(float(options.get("seconds", 1)))
        case "truncated":
            body = body[: len(body) // 2]
        case "wrong-type":
            body = b'["unexpected"]'
        case "gzip":
            body = gzip.compress(body + b" " * int(options.get("size", 0)), 1)
            headers["content-encoding"] = "gzip"
        case "huge":
            chunks = _padded(body, int(options.get("size", _HUGE)))
            return StreamingResponse(chunks, answer.status, headers=headers)
        case "drip":
            chunks = _dripped(body, float(options.get("seconds", 0.05)))
            return StreamingResponse(chunks, answer.status, headers=headers)
    return Response(body, answer.status, headers=headers)


def cut(request: Request) -> Response:
    """Reset the connection (TCP RST); the response is never sent."""
    transport = request.state.transport
    if (sock := transport.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return Response()


async def _padded(body: bytes, size: int) -> AsyncIterator[bytes]:
    yield body
    for _ in range(-(-(size - len(body)) // _CHUNK)):
        yield b" " * _CHUNK


async def _dripped(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    for octet in body:
        yield bytes((octet,))
        await asyncio.sleep(seconds)
