"""Error responses: application/problem+json (RFC 9457) from the API, HTML from the page."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from services.audit.commands.context import (
    CommandError,
    ConflictError,
    MalformedError,
    NotFoundError,
)
from services.audit.query.filters import BadCursorError
from services.audit.store.engine import DatabaseError
from shared.bus.core import BusError
from shared.config.load import SettingsError
from shared.log.envelope import UnreadableEventError
from shared.observe.logs import log_failure

_METHODS: Final = ("DELETE", "GET", "POST")
MEDIA_TYPE: Final = "application/problem+json"


class ProblemError(Exception):
    """Raised to answer with a problem."""

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        """Take the status, detail and headers; `more` are extension members."""
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more


def problem(
    status: int, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Return a problem response. It repeats nothing of the request except what `detail` says."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(content, status, headers, MEDIA_TYPE)


_STATUS: Final[dict[type[Exception], int]] = {
    MalformedError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    CommandError: 502,
    BadCursorError: 400,
}


# Temporary failures: a 503 with Retry-After. The error is logged without its text.
_AWAY: Final[dict[type[Exception], str]] = {
    BusError: "the event log is unavailable",
    UnreadableEventError: "the event log is unavailable",
    DatabaseError: "the database is unavailable",
    SettingsError: "the configuration cannot be read",
}


PageProblem = Callable[[int, str, Mapping[str, str] | None], Response]
_API: Final = "/api/"


def handle(app: FastAPI, page_problem: PageProblem) -> None:
    """Install error handlers: problems for the API, `page_problem` for every other path."""
    app.state.page_problem = page_problem
    for kind in _STATUS:
        app.add_exception_handler(kind, _known)
    for kind in _AWAY:
        app.add_exception_handler(kind, _away)
    app.add_exception_handler(ProblemError, _own)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def _answer(
    request: Request, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    if request.url.path.startswith(_API):
        return problem(status, detail, headers, **more)
    page_problem: PageProblem = request.app.state.page_problem
    return page_problem(status, detail, headers)


async def problem_response(request: Request, error: ProblemError) -> Response:
    """Return the response to a problem that was raised outside the application."""
    return await _own(request, error)


async def _known(request: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    return _answer(request, status, str(error))


async def _away(request: Request, error: Exception) -> Response:
    log_failure("request_failed", error)
    detail = next(sentence for kind, sentence in _AWAY.items() if isinstance(error, kind))
    if isinstance(error, SettingsError):
        detail = f"{detail}: {error}"
    return _answer(request, 503, detail, {"retry-after": "5"})


async def _own(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _answer(request, error.status, error.detail, error.headers, **error.more)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _answer(request, 400, f"{place}: {first['msg']}")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else None
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"allow": ", ".join(_methods(request))}
    return _answer(request, error.status_code, HTTPStatus(error.status_code).phrase, headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of all routes of a path; the router reports only the first route's."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    return [
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]
