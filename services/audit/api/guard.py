"""Checks of the admin port before it reads a body: Host, authentication, size."""

from typing import Final
from urllib.parse import SplitResult, urlsplit

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.audit.api.dependencies import Dependencies, identify
from services.audit.api.problems import ProblemError, problem_response
from shared.config.addresses import parse_address
from shared.limits import ADMIN_BODY_BYTES

_API: Final = "/api/"
_OPERATIONS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS: Final = {"http": 80, "https": 443}


class Guard:
    """ASGI middleware around the admin application."""

    def __init__(self, app: ASGIApp, deps: Dependencies) -> None:
        """Wrap an application that has these dependencies."""
        self._app, self._deps = app, deps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on with a body of limited size."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, body = Request(scope), _Body(receive, send)
        try:
            await self._check(request)
        except ProblemError as error:
            response = await problem_response(request, error)
            response.headers["connection"] = "close"  # the body stays unread
            await response(scope, receive, send)
            return
        if request.method in _SAFE:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, body.receive, body.send)

    async def _check(self, request: Request) -> None:
        path = request.url.path
        is_page = not path.startswith(_API) and path not in _OPERATIONS
        if is_page and not is_served(request, self._deps.public_url):
            detail = "this host name is not served; set audit.public_url to the page's address"
            raise ProblemError(421, detail)
        declared = request.headers.get("content-length", "0")
        has_body = declared != "0" or "transfer-encoding" in request.headers
        if path.startswith(_API) and has_body and request.method not in _SAFE:
            request.state.operator = await identify(request, self._deps)
        if declared.isdigit() and int(declared) > ADMIN_BODY_BYTES:
            raise ProblemError(413, "the request is too large")


class _Body:
    """A request body up to the limit. A response before its end closes the connection."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._length, self._is_complete = 0, False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._length += len(message.get("body", b""))
            if self._length > ADMIN_BODY_BYTES:
                raise HTTPException(413)
            self._is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_complete:
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await self._send(message)


def is_served(request: Request, public_url: str | None) -> bool:
    """Return whether the page is served under the request's Host (see docs/decisions/0025).

    Accepted are the host of `public_url`, IP addresses, and names without a dot: nobody else can
    make these resolve to this host in a browser (DNS rebinding). A request whose Origin is
    `public_url` is accepted with any Host.
    """
    origin = request.headers.get("origin")
    if public_url is not None and origin is not None and same_origin(origin, public_url):
        return True
    host = _split(f"//{request.headers.get('host', '')}")
    if host is None or not host.hostname:
        return False
    name = host.hostname
    public = _split(public_url or "")
    known = public is not None and public.hostname == name
    return known or "." not in name or parse_address(name) is not None


def is_own_origin(request: Request, public_url: str | None) -> bool:
    """Return whether the request has no Origin, or the Origin of this page.

    Behind a proxy that sets its own Host, the Origin is still `public_url`.
    """
    origin = request.headers.get("origin", "")
    split = _split(origin)
    if not origin or split is None:
        return not origin
    public = _split(public_url or "")
    if public is not None and public.hostname == split.hostname:
        return same_origin(origin, public_url or "")
    return split.netloc == request.headers.get("host")


def same_origin(one: str, other: str) -> bool:
    """Return whether two origins are equal, with default ports explicit or omitted."""
    return _origin(one) is not None and _origin(one) == _origin(other)


def _origin(text: str) -> tuple[str, str, int] | None:
    split = _split(text)
    if split is None or not split.hostname or split.scheme not in _PORTS:
        return None
    return split.scheme, split.hostname, split.port or _PORTS[split.scheme]


def _split(text: str) -> SplitResult | None:
    """Split a URL; return None if the URL or its port is malformed."""
    try:
        split = urlsplit(text)
        _ = split.port
    except ValueError:
        return None
    return split
